"""The files that the plan chooses are enough for the libraries: tiny random models, saved with everything, loaded from the chosen files
alone."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from gen_worker.refs import ModelSpec
from gen_worker.sources.file_plan import SelectionPolicy
from gen_worker.sources.gather import plan_folder
from gen_worker.sources.pipeline_plan import REQUIRES
from gen_worker.sources.tokenizer_files import COMMON, vocabulary_of

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
diffusers = pytest.importorskip("diffusers")
pytestmark = pytest.mark.torch

SPEC = ModelSpec("hf:demo/m", ("fp32",))
SMALL = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 37}


def name_of(kind: Any) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def chosen(folder: Path, into: Path, *takers: Any) -> set[str]:
    """Copy what the plan of a folder chooses; the names."""
    files = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    sizes = {name: path.stat().st_size for name, path in files.items()}
    plan = plan_folder(files, sizes, SelectionPolicy(precisions=("fp32", "bf16", "fp16"), takers=tuple(map(name_of, takers))), "m")
    for name in plan.files:
        (into / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(files[name], into / name)
    return set(plan.files)


def add_clutter(folder: Path) -> None:
    """What lies beside models in repositories, and must not be taken."""
    for name in ("README.md", "train.py", "modeling_x.py", "pytorch_model.bin", "tf_model.h5", "onnx/model.onnx", "adapter_config.json"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"{}")


MODELS = [
    (transformers.BertModel, lambda: transformers.BertConfig(vocab_size=99, **SMALL)),
    (transformers.XLMRobertaForMaskedLM, lambda: transformers.XLMRobertaConfig(vocab_size=99, **SMALL)),
    (transformers.LlamaForCausalLM, lambda: transformers.LlamaConfig(vocab_size=99, num_key_value_heads=2, **SMALL)),
    (transformers.Qwen2ForCausalLM, lambda: transformers.Qwen2Config(vocab_size=99, num_key_value_heads=2, **SMALL)),
    (transformers.MistralForCausalLM, lambda: transformers.MistralConfig(vocab_size=99, num_key_value_heads=2, **SMALL)),
    (transformers.Gemma2ForCausalLM, lambda: transformers.Gemma2Config(vocab_size=99, num_key_value_heads=2, head_dim=16, **SMALL)),
    (transformers.GPT2LMHeadModel, lambda: transformers.GPT2Config(vocab_size=99, n_embd=32, n_layer=1, n_head=2, n_positions=64)),
    (transformers.T5ForConditionalGeneration, lambda: transformers.T5Config(vocab_size=99, d_model=32, d_kv=8, d_ff=37, num_layers=1, num_heads=2)),
    (transformers.BartForConditionalGeneration, lambda: transformers.BartConfig(vocab_size=99, d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=20, decoder_ffn_dim=20, max_position_embeddings=40)),
    (transformers.ViTForImageClassification, lambda: transformers.ViTConfig(image_size=16, patch_size=8, **SMALL)),
    (transformers.CLIPTextModel, lambda: transformers.CLIPTextConfig(vocab_size=99, **SMALL)),
    (transformers.SiglipVisionModel, lambda: transformers.SiglipVisionConfig(image_size=16, patch_size=8, **SMALL)),
    (transformers.Wav2Vec2ForCTC, lambda: transformers.Wav2Vec2Config(vocab_size=32, conv_dim=(8, 8), conv_stride=(4, 4), conv_kernel=(4, 4), num_feat_extract_layers=2, num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=2, **SMALL)),
    (transformers.WhisperForConditionalGeneration, lambda: transformers.WhisperConfig(vocab_size=99, d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=20, decoder_ffn_dim=20, num_mel_bins=8, max_source_positions=20, max_target_positions=20, pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1)),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "config"), [pytest.param(kind, config, id=kind.__name__) for kind, config in MODELS])
@pytest.mark.parametrize("shards", ["1GB", "12KB"])
def test_models(tmp_path: Path, kind: Any, config: Any, shards: str) -> None:
    torch.manual_seed(0)
    model = kind(config())
    model.save_pretrained(tmp_path / "all", max_shard_size=shards)
    saved = {path.name for path in (tmp_path / "all").iterdir()}
    add_clutter(tmp_path / "all")
    assert chosen(tmp_path / "all", tmp_path / "some", kind) == saved
    again, info = kind.from_pretrained(tmp_path / "some", local_files_only=True, output_loading_info=True)
    assert not info["missing_keys"]
    for (name, one), (_, other) in zip(model.state_dict().items(), again.state_dict().items(), strict=True):
        assert torch.equal(one, other), name


def test_tokenizers_and_processors(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = {word: number for number, word in enumerate(["[UNK]", "[PAD]", "[CLS]", "[SEP]", "[MASK]", "hello", "world"])}
    plain = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    plain.pre_tokenizer = pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(tokenizer_object=plain, chat_template="{{ messages }}").save_pretrained(tmp_path / "all")
    saved = {path.name for path in (tmp_path / "all").iterdir()}
    add_clutter(tmp_path / "all")
    (tmp_path / "all/model.safetensors").write_bytes(b"much")
    assert chosen(tmp_path / "all", tmp_path / "some", transformers.AutoTokenizer) == saved
    again = transformers.AutoTokenizer.from_pretrained(tmp_path / "some", local_files_only=True)
    assert (again("hello world")["input_ids"], again.chat_template) == ([5, 6], "{{ messages }}")


def test_a_vocabulary_of_bytes(tmp_path: Path) -> None:
    transformers.ByT5Tokenizer().save_pretrained(tmp_path / "all")
    saved = {path.name for path in (tmp_path / "all").iterdir()}
    assert chosen(tmp_path / "all", tmp_path / "some", transformers.ByT5Tokenizer) == saved
    assert transformers.ByT5Tokenizer.from_pretrained(tmp_path / "some", local_files_only=True)("a")["input_ids"] == [100, 1]


def test_feature_extractors(tmp_path: Path) -> None:
    transformers.WhisperFeatureExtractor(feature_size=8).save_pretrained(tmp_path / "all")
    saved = {path.name for path in (tmp_path / "all").iterdir()}
    add_clutter(tmp_path / "all")
    assert chosen(tmp_path / "all", tmp_path / "some", transformers.WhisperFeatureExtractor) == saved
    assert transformers.WhisperFeatureExtractor.from_pretrained(tmp_path / "some", local_files_only=True).feature_size == 8


def tiny_unet() -> Any:
    return diffusers.UNet2DConditionModel(
        block_out_channels=(32, 64),
        layers_per_block=1,
        sample_size=16,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=32,
    )


def tiny_vae() -> Any:
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    return diffusers.AutoencoderKL(block_out_channels=(32, 64), latent_channels=4, **blocks)


@pytest.mark.parametrize("make", [tiny_unet, tiny_vae])
def test_models_of_diffusers(tmp_path: Path, make: Any) -> None:
    model = make()
    model.save_pretrained(tmp_path / "all")
    saved = {path.name for path in (tmp_path / "all").iterdir()}
    add_clutter(tmp_path / "all")
    assert chosen(tmp_path / "all", tmp_path / "some", type(model)) == saved
    again = type(model).from_pretrained(tmp_path / "some", local_files_only=True)
    assert all(torch.equal(one, other) for one, other in zip(model.parameters(), again.parameters(), strict=True))


def test_a_pipeline_that_needs_its_feature_extractor(tmp_path: Path) -> None:
    vision = transformers.CLIPVisionConfig(image_size=32, patch_size=8, projection_dim=32, **SMALL)
    kind = diffusers.StableDiffusionImageVariationPipeline
    pipe = kind(
        vae=tiny_vae(),
        image_encoder=transformers.CLIPVisionModelWithProjection(vision),
        unet=tiny_unet(),
        scheduler=diffusers.DDIMScheduler(),
        safety_checker=None,
        feature_extractor=transformers.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}),
        requires_safety_checker=False,
    )
    pipe.save_pretrained(tmp_path / "all")
    saved = {str(path.relative_to(tmp_path / "all")) for path in (tmp_path / "all").rglob("*") if path.is_file()}
    add_clutter(tmp_path / "all")
    (tmp_path / "all/unet/diffusion_pytorch_model.bin").write_bytes(b"p")
    (tmp_path / "all/unet/my_unet.py").write_bytes(b"raise SystemExit")
    for taker in (kind, diffusers.DiffusionPipeline):
        into = tmp_path / taker.__name__
        assert chosen(tmp_path / "all", into, taker) == saved
        assert type(taker.from_pretrained(into, local_files_only=True)) is kind


def test_the_table_of_pipelines_is_the_librarys() -> None:
    import inspect

    for name in dir(diffusers):
        if not name.endswith("Pipeline"):
            continue
        try:
            kind = getattr(diffusers, name)
            parameters = inspect.signature(kind.__init__).parameters
        except (ImportError, RuntimeError, ValueError, AttributeError):  # of an extra that is not installed
            continue
        for part, pipelines in REQUIRES.items():
            needs = (
                part in parameters
                and part not in getattr(kind, "_optional_components", [])
                and parameters[part].default is inspect.Parameter.empty
            )
            if "Onnx" not in name and "Flax" not in name:
                assert not needs or name in pipelines, f"{name} requires {part}"


def test_the_table_of_tokenizers_has_what_the_library_has() -> None:
    seen = 0
    for name in dir(transformers):
        if "Tokenizer" not in name or name.endswith(("Config", "Model", "Output")):
            continue
        try:
            files = set(getattr(transformers, name).vocab_files_names.values())
        except (ImportError, AttributeError):
            continue
        ours = vocabulary_of(name)
        seen += ours is not None
        assert files <= {*COMMON, *(ours or ())} or ours is None, f"{name} reads {sorted(files)}"
    assert seen > 70


def test_shards_of_a_pipeline(tmp_path: Path) -> None:
    model = tiny_unet()
    model.save_pretrained(tmp_path / "all/unet", max_shard_size="1MB")
    index = {"_class_name": "X", "unet": ["diffusers", "UNet2DConditionModel"]}
    (tmp_path / "all/model_index.json").write_text(json.dumps(index))
    names = chosen(tmp_path / "all", tmp_path / "some", diffusers.DiffusionPipeline)
    assert len([name for name in names if "-of-" in name]) > 2
    again = diffusers.UNet2DConditionModel.from_pretrained(tmp_path / "some/unet", local_files_only=True)
    assert all(torch.equal(one, other) for one, other in zip(model.parameters(), again.parameters(), strict=True))
