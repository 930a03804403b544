"""Models of real classes with random weights, small enough to create in a test."""

from pathlib import Path
from typing import Any

TOKENIZER = Path(__file__).parents[1] / "examples/models/digits-sd/tokenizer"


def tiny_sdxl(folder: Path, seed: int = 0) -> Path:
    import diffusers
    import torch
    import transformers

    torch.manual_seed(seed)
    text = {
        "bos_token_id": 0, "eos_token_id": 2, "hidden_size": 32, "intermediate_size": 37, "layer_norm_eps": 1e-05,
        "num_attention_heads": 4, "num_hidden_layers": 5, "pad_token_id": 1, "vocab_size": 1000, "projection_dim": 32,
    }  # fmt: skip
    config = transformers.CLIPTextConfig(**text)
    blocks = {"down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"), "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D")}
    unet = diffusers.UNet2DConditionModel(
        block_out_channels=(32, 64), layers_per_block=1, sample_size=16, in_channels=4, out_channels=4, attention_head_dim=(2, 4),
        use_linear_projection=True, addition_embed_type="text_time", addition_time_embed_dim=8, transformer_layers_per_block=(1, 2),
        projection_class_embeddings_input_dim=80, cross_attention_dim=64, **blocks,
    )  # fmt: skip
    vae = diffusers.AutoencoderKL(
        block_out_channels=(32, 64), in_channels=3, out_channels=3, latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
    )  # fmt: skip
    tokenizer = transformers.AutoTokenizer.from_pretrained(TOKENIZER)
    diffusers.StableDiffusionXLPipeline(
        vae=vae,
        text_encoder=transformers.CLIPTextModel(config),
        text_encoder_2=transformers.CLIPTextModelWithProjection(config),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        unet=unet,
        scheduler=diffusers.EulerDiscreteScheduler(beta_start=0.00085, beta_end=0.012),
    ).save_pretrained(folder)
    return folder


def tiny_flux(folder: Path) -> Path:
    import diffusers
    import torch
    import transformers

    torch.manual_seed(0)
    transformer = diffusers.FluxTransformer2DModel(
        patch_size=1, in_channels=4, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=32, pooled_projection_dim=32, axes_dims_rope=(4, 4, 8),
    )  # fmt: skip
    clip = transformers.CLIPTextConfig(hidden_size=32, intermediate_size=37, num_attention_heads=4, num_hidden_layers=2, vocab_size=1000)
    t5 = transformers.T5Config(d_model=32, d_ff=37, d_kv=8, num_heads=4, num_layers=2, vocab_size=1000)
    vae = diffusers.AutoencoderKL(block_out_channels=(4,), latent_channels=1, norm_num_groups=1, shift_factor=0.0609)
    tokenizer = transformers.AutoTokenizer.from_pretrained(TOKENIZER)
    diffusers.FluxPipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
        vae=vae,
        text_encoder=transformers.CLIPTextModel(clip),
        text_encoder_2=transformers.T5EncoderModel(t5),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        transformer=transformer,
    ).save_pretrained(folder)
    return folder


def tiny_chat_model(folder: Path) -> Path:
    """A Qwen2 with a vocabulary of single bytes, and its chat template."""
    import torch
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    torch.manual_seed(0)
    vocabulary = {
        letter: number for number, letter in enumerate([*sorted(pre_tokenizers.ByteLevel.alphabet()), "<|im_start|>", "<|im_end|>"])
    }
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    wrapped = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|im_end|>", additional_special_tokens=["<|im_start|>"]
    )
    wrapped.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    config = transformers.Qwen2Config(
        vocab_size=len(vocabulary), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        max_position_embeddings=512, eos_token_id=vocabulary["<|im_end|>"], tie_word_embeddings=True,
    )  # fmt: skip
    transformers.Qwen2ForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    wrapped.save_pretrained(folder)
    return folder


def tiny_whisper(folder: Path) -> Path:
    """A Whisper with two languages and a vocabulary of single bytes."""
    import torch
    import transformers
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    torch.manual_seed(0)
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = ["<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|de|>", "<|translate|>", "<|transcribe|>", "<|startoflm|>", "<|startofprev|>",
               "<|nospeech|>", "<|notimestamps|>"]  # fmt: skip
    vocabulary = {name: number for number, name in enumerate([*letters, *special])}
    times = [f"<|{0.02 * step:.2f}|>" for step in range(1501)]
    vocabulary |= {name: len(vocabulary) + number for number, name in enumerate(times)}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in special])
    tokenizer.add_tokens([AddedToken(name) for name in times])
    wrapped = transformers.WhisperTokenizer(
        tokenizer_object=tokenizer,
        bos_token="<|endoftext|>",
        eos_token="<|endoftext|>",
        unk_token="<|endoftext|>",
        pad_token="<|endoftext|>",
    )
    config = transformers.WhisperConfig(
        vocab_size=len(vocabulary), d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=32, decoder_ffn_dim=32, num_mel_bins=80, max_source_positions=1500, max_target_positions=64,
        decoder_start_token_id=vocabulary["<|startoftranscript|>"], eos_token_id=vocabulary["<|endoftext|>"], pad_token_id=vocabulary["<|endoftext|>"],
        bos_token_id=vocabulary["<|endoftext|>"], suppress_tokens=[], begin_suppress_tokens=[],
    )  # fmt: skip
    model = transformers.WhisperForConditionalGeneration(config)
    model.generation_config = transformers.GenerationConfig(
        decoder_start_token_id=config.decoder_start_token_id, eos_token_id=config.eos_token_id, pad_token_id=config.pad_token_id,
        bos_token_id=config.bos_token_id, is_multilingual=True, lang_to_id={"<|en|>": vocabulary["<|en|>"], "<|de|>": vocabulary["<|de|>"]},
        task_to_id={"transcribe": vocabulary["<|transcribe|>"], "translate": vocabulary["<|translate|>"]}, max_initial_timestamp_index=50,
        no_timestamps_token_id=vocabulary["<|notimestamps|>"], prev_sot_token_id=vocabulary["<|startofprev|>"], max_length=32, return_timestamps=False,
    )  # fmt: skip
    model.half().save_pretrained(folder)
    transformers.WhisperProcessor(transformers.WhisperFeatureExtractor(feature_size=80), wrapped).save_pretrained(folder)
    return folder


def tiny_voice(folder: Path) -> Path:
    """A VITS whose vocabulary is small letters."""
    import json

    import torch
    import transformers

    torch.manual_seed(0)
    folder.mkdir(parents=True, exist_ok=True)
    letters = ["<pad>", "<unk>", *" abcdefghijklmnopqrstuvwxyz'"]
    (folder / "vocab.json").write_text(json.dumps({letter: number for number, letter in enumerate(letters)}))
    transformers.VitsTokenizer(str(folder / "vocab.json"), phonemize=False).save_pretrained(folder)
    config = transformers.VitsConfig(
        vocab_size=len(letters), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, ffn_dim=16, flow_size=16, spectrogram_bins=9,
        prior_encoder_num_flows=1, prior_encoder_num_wavenet_layers=1, posterior_encoder_num_wavenet_layers=1, duration_predictor_num_flows=2,
        duration_predictor_filter_channels=16, depth_separable_num_layers=1, upsample_initial_channel=16, upsample_rates=(4, 4),
        upsample_kernel_sizes=(8, 8), resblock_kernel_sizes=(3,), resblock_dilation_sizes=((1, 3),), wavenet_kernel_size=3,
        wavenet_dilation_rate=1, sampling_rate=16_000,
    )  # fmt: skip
    transformers.VitsModel(config).save_pretrained(folder)
    return folder


def tiny_encoder(folder: Path, config: Any = None) -> Path:
    """A BERT (or what the configuration says) with the digits' tokenizer: the folder of an encoder, without modules of sentence-transformers."""
    import torch
    import transformers

    torch.manual_seed(0)
    tokenizer = transformers.AutoTokenizer.from_pretrained(TOKENIZER)
    small = {"vocab_size": len(tokenizer), "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 37}
    transformers.AutoModel.from_config(config or transformers.BertConfig(max_position_embeddings=40, **small)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
