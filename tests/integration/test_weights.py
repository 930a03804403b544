"""Weights of transformers and diffusers models: which are in the files, which are tied, and which are missing, as the libraries see it."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
from tests.loading import load, plan, same_modules
from tests.tiny_models import tiny_flux, tiny_sdxl

from gen_worker.errors import FatalError
from gen_worker.residency.loaders.diffusers import DiffusersLoader
from gen_worker.residency.loaders.transformers import TransformersLoader

MODELS = Path(__file__).parents[2] / "examples/models"
torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")
transformers = pytest.importorskip("transformers")
safetensors_torch = pytest.importorskip("safetensors.torch")
pytestmark = pytest.mark.torch

LM = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 128,
}
CONFIGS: dict[str, Callable[..., Any]] = {
    "LlamaForCausalLM": lambda **how: transformers.LlamaConfig(**LM, **how),
    "Qwen2ForCausalLM": lambda **how: transformers.Qwen2Config(**LM, **how),
    "MistralForCausalLM": lambda **how: transformers.MistralConfig(**LM, **how),
    "GemmaForCausalLM": lambda **how: transformers.GemmaConfig(**LM, head_dim=8, **how),
    "GPT2LMHeadModel": lambda **how: transformers.GPT2Config(n_embd=32, n_layer=2, n_head=2, vocab_size=128, **how),
    "OPTForCausalLM": lambda **how: transformers.OPTConfig(
        hidden_size=32, ffn_dim=64, num_hidden_layers=2, num_attention_heads=2, vocab_size=128, word_embed_proj_dim=32, max_position_embeddings=64, **how
    ),
    "BertModel": lambda **how: transformers.BertConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=37, vocab_size=99, **how
    ),
    "BertForMaskedLM": lambda **how: transformers.BertConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=37, vocab_size=99, **how
    ),
    "T5ForConditionalGeneration": lambda **how: transformers.T5Config(
        d_model=32, d_ff=37, d_kv=8, num_heads=4, num_layers=2, vocab_size=99, **how
    ),
    "WhisperForConditionalGeneration": lambda **how: transformers.WhisperConfig(
        d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=37,
        decoder_ffn_dim=37, vocab_size=100, pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1, **how,
    ),
    "CLIPTextModel": lambda **how: transformers.CLIPTextConfig(
        hidden_size=32, intermediate_size=37, num_attention_heads=4, num_hidden_layers=2, vocab_size=100, **how
    ),
    "ViTModel": lambda **how: transformers.ViTConfig(
        hidden_size=32, intermediate_size=37, num_attention_heads=4, num_hidden_layers=2, image_size=32, patch_size=8, **how
    ),
}  # fmt: skip
RENAMED = ("ViTModel",)  # their files have other names than their modules: the library knows them
WITH_HEADS = [name for name in CONFIGS if name not in ("BertModel", "CLIPTextModel", "ViTModel")]


def saved(folder: Path, name: str, **how: Any) -> Any:
    """A class, and a folder with random weights of it."""
    torch.manual_seed(1)
    kind = getattr(transformers, name)
    kind(CONFIGS[name](**how)).save_pretrained(folder)
    return kind


def change(folder: Path, edit: Callable[[dict[str, Any]], None], file: str = "model.safetensors") -> None:
    tensors = safetensors_torch.load_file(folder / file)
    edit(tensors)
    safetensors_torch.save_file(tensors, folder / file, metadata={"format": "pt"})


@pytest.mark.parametrize("name", CONFIGS)
def test_architectures(tmp_path: Path, name: str) -> None:
    kind = saved(tmp_path, name)
    found = plan(TransformersLoader(), kind, tmp_path)
    same_modules(load(found, fast=name not in RENAMED).model, kind.from_pretrained(tmp_path).eval())


@pytest.mark.parametrize("in_files", ["both, different", "both, equal", "the first", "the second"])
@pytest.mark.parametrize("name", WITH_HEADS)
def test_weights_that_the_configuration_ties(tmp_path: Path, name: str, in_files: str) -> None:
    """Whatever of two tied weights the files hold, the library's word counts."""
    kind = saved(tmp_path, name, tie_word_embeddings=True)
    whole = kind.from_pretrained(tmp_path)
    pairs = getattr(whole, "all_tied_weights_keys", None) or {}
    if not pairs:
        pytest.skip("nothing is tied in this class")

    def edit(tensors: dict[str, Any]) -> None:
        values = [tensors[first] if first in tensors else tensors[second] for second, first in pairs.items()]
        for (second, first), value in zip(pairs.items(), values, strict=True):
            tensors[first], tensors[second] = value.clone(), value.clone()
            if in_files == "both, different":
                tensors[second] += 1
            elif in_files != "both, equal":
                tensors.pop(second if in_files == "the first" else first, None)

    change(tmp_path, edit)
    try:
        theirs, info = kind.from_pretrained(tmp_path, output_loading_info=True)
    except RuntimeError:
        pytest.skip("the library does not load it")
    if info["missing_keys"]:
        with pytest.raises(FatalError, match="lack"):
            load(plan(TransformersLoader(), kind, tmp_path), fast=False)
    else:
        same_modules(load(plan(TransformersLoader(), kind, tmp_path)).model, theirs.eval())


@pytest.mark.parametrize("name", CONFIGS)
def test_each_tensor_that_the_files_lack(tmp_path: Path, name: str) -> None:
    """Of each class every third tensor in turn: what the library calls missing is an error that names it; all else loads as by the library."""
    kind = saved(tmp_path, name)
    file = tmp_path / "model.safetensors"
    content = file.read_bytes()
    for lost in sorted(safetensors_torch.load_file(file))[::3]:
        file.write_bytes(content)
        change(tmp_path, lambda tensors, lost=lost: tensors.pop(lost))
        _, info = kind.from_pretrained(tmp_path, output_loading_info=True)
        missing = sorted(info["missing_keys"])
        assert lost in missing or name in RENAMED
        with pytest.raises(FatalError, match=re.escape("lack " + ", ".join(map(repr, missing)))):
            load(plan(TransformersLoader(), kind, tmp_path), fast=False)


def test_a_head_that_the_files_lack(tmp_path: Path) -> None:
    saved(tmp_path, "Qwen2ForCausalLM", tie_word_embeddings=False)
    change(tmp_path, lambda tensors: tensors.pop("lm_head.weight"))
    for kind in (transformers.AutoModelForCausalLM, transformers.Qwen2ForCausalLM):
        with pytest.raises(FatalError, match=r"lack 'lm_head.weight'; expected every weight of Qwen2ForCausalLM"):
            load(plan(TransformersLoader(), kind, tmp_path), fast=False)


def test_a_class_whose_parts_the_files_lack(tmp_path: Path) -> None:
    """The library would make a classifier of random numbers."""
    saved(tmp_path, "BertForMaskedLM")
    with pytest.raises(FatalError, match=r"lack .*'classifier.bias', 'classifier.weight'"):
        load(plan(TransformersLoader(), transformers.AutoModelForSequenceClassification, tmp_path), fast=False)


def test_what_the_library_calls_optional_may_be_missing(tmp_path: Path) -> None:
    class Patient(transformers.BertForMaskedLM):  # type: ignore[misc, name-defined]
        _keys_to_ignore_on_load_missing: ClassVar = [r"cls\.predictions\.transform\.LayerNorm"]

    saved(tmp_path, "BertForMaskedLM")
    change(tmp_path, lambda tensors: tensors.pop("cls.predictions.transform.LayerNorm.weight"))
    with pytest.raises(FatalError, match="LayerNorm"):
        load(plan(TransformersLoader(), transformers.BertForMaskedLM, tmp_path), fast=False)
    found = plan(TransformersLoader(), Patient, tmp_path)
    same_modules(load(found, fast=False).model, Patient.from_pretrained(tmp_path).eval())


def test_a_tensor_of_another_shape(tmp_path: Path) -> None:
    saved(tmp_path, "Qwen2ForCausalLM", tie_word_embeddings=False)
    change(tmp_path, lambda tensors: tensors.update({"lm_head.weight": tensors["lm_head.weight"][:100].clone()}))
    with pytest.raises(FatalError, match=r"'lm_head.weight' has the shape \[100, 32\] in the files, the configuration expects \[128, 32\]"):
        load(plan(TransformersLoader(), transformers.Qwen2ForCausalLM, tmp_path), fast=False)


@pytest.mark.parametrize("dtypes", [("fp32",), ("fp8", "fp32")])
@pytest.mark.parametrize("make", [tiny_sdxl, tiny_flux])
def test_each_component_that_lacks_a_tensor(tmp_path: Path, make: Callable[[Path], Path], dtypes: tuple[str, ...]) -> None:
    folder = make(tmp_path / "model")
    for file in sorted(folder.glob("*/*.safetensors")):
        content, names = file.read_bytes(), sorted(safetensors_torch.load_file(file))
        for lost in (names[0], names[len(names) // 2], names[-1]):
            file.write_bytes(content)
            change(file.parent, lambda tensors, lost=lost: tensors.pop(lost), file.name)
            found = plan(DiffusersLoader(), diffusers.DiffusionPipeline, folder, dtypes)
            with pytest.raises(FatalError, match=f"{file.parent.name} lack .*'{re.escape(lost)}'"):
                load(found, fast=False)
        file.write_bytes(content)
    load(plan(DiffusersLoader(), diffusers.DiffusionPipeline, folder, dtypes))


def test_a_single_model_that_lacks_a_tensor() -> None:
    found = plan(DiffusersLoader(), diffusers.UNet2DConditionModel, MODELS / "digits-sd/unet")
    same_modules(load(found, fast=True).model, diffusers.UNet2DConditionModel.from_pretrained(MODELS / "digits-sd/unet"))


def test_a_single_model_of_the_library_that_lacks_a_tensor(tmp_path: Path) -> None:
    folder = tmp_path / "unet"
    diffusers.UNet2DConditionModel.from_pretrained(MODELS / "digits-sd/unet").save_pretrained(folder)
    change(folder, lambda tensors: tensors.pop("conv_out.weight"), "diffusion_pytorch_model.safetensors")
    with pytest.raises(FatalError, match=r"unet lack 'conv_out\.weight'"):
        load(plan(DiffusersLoader(), diffusers.UNet2DConditionModel, folder))


@pytest.mark.parametrize("kind", ["AutoencoderKL", "AutoencoderTiny"])
def test_a_piece_that_lacks_a_tensor_which_its_index_names(tmp_path: Path, kind: str) -> None:
    sizes: dict[str, dict[str, Any]] = {
        "AutoencoderKL": {"block_out_channels": (8,), "norm_num_groups": 4},
        "AutoencoderTiny": {"encoder_block_out_channels": (8, 8), "decoder_block_out_channels": (8, 8), "num_encoder_blocks": (1, 1),
                            "num_decoder_blocks": (1, 1)},
    }  # fmt: skip
    model = getattr(diffusers, kind)(**sizes[kind])
    model.save_pretrained(tmp_path, max_shard_size="4KB")
    found = plan(DiffusersLoader(), type(model), tmp_path)
    same_modules(load(found).model, model)
    piece = next(file for file in sorted(tmp_path.glob("*.safetensors")) if len(safetensors_torch.load_file(file)) > 1)
    lost = sorted(safetensors_torch.load_file(piece))[0]
    change(tmp_path, lambda tensors: tensors.pop(lost), piece.name)
    with pytest.raises(FatalError, match=f"lack '{re.escape(lost)}'"):
        load(plan(DiffusersLoader(), type(model), tmp_path))


def two_saves(folder: Path, library: str, seed: int, **how: Any) -> None:
    """A causal model, or a pipeline of one UNet, with other numbers for each seed."""
    torch.manual_seed(seed)
    if library == "transformers":
        transformers.LlamaForCausalLM(CONFIGS["LlamaForCausalLM"]()).save_pretrained(folder, **how)
        return
    unet = diffusers.UNet2DModel(
        sample_size=8, block_out_channels=(8, 8), norm_num_groups=4, layers_per_block=1, attention_head_dim=4,
        down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2,
    )  # fmt: skip
    diffusers.DDPMPipeline(unet, diffusers.DDPMScheduler()).save_pretrained(folder)
    if how:
        (folder / "unet/diffusion_pytorch_model.safetensors").unlink()
        unet.save_pretrained(folder / "unet", **how)


BESIDE: dict[str, Callable[[Path, str, Path], Any]] = {
    "shards of one with their index": lambda f, stem, other: rename(
        f, f"{stem}.safetensors", f"{stem}-00001-of-00001.safetensors", index=True
    ),
    "an index, and a single file of another save": lambda f, stem, other: (
        rename(f, f"{stem}.safetensors", f"{stem}-00001-of-00001.safetensors", index=True),
        shutil.copy(other, f / f"{stem}.safetensors"),
    ),
    "a single file, and a shard of another save without an index": lambda f, stem, other: shutil.copy(
        other, f / f"{stem}-00001-of-00001.safetensors"
    ),
    "a shard too many": lambda f, stem, other: shutil.copy(other, f / f"{stem}-00009-of-00009.safetensors"),
    "an adapter": lambda f, stem, other: safetensors_torch.save_file({"a": torch.zeros(1)}, f / "adapter_model.safetensors"),
    "the weights in a form of others": lambda f, stem, other: safetensors_torch.save_file(
        {"a": torch.zeros(1)}, f / "consolidated.safetensors"
    ),
}


def rename(folder: Path, old: str, new: str, *, index: bool) -> None:
    (folder / old).rename(folder / new)
    if index:
        content = {"metadata": {}, "weight_map": dict.fromkeys(safetensors_torch.load_file(folder / new), new)}
        (folder / f"{old}.index.json").write_text(json.dumps(content))


@pytest.mark.parametrize("beside", BESIDE)
@pytest.mark.parametrize("library", ["transformers", "diffusers"])
def test_of_several_saves_in_a_folder_the_one_that_the_library_reads(tmp_path: Path, library: str, beside: str) -> None:
    """Users save over what is there, and copy folders together. Which file counts is each library's rule, not ours."""
    ours, other = tmp_path / "ours", tmp_path / "other"
    for seed, folder in enumerate((ours, other)):
        two_saves(folder, library, seed)
    part, stem = ("", "model") if library == "transformers" else ("unet", "diffusion_pytorch_model")
    BESIDE[beside](ours / part, stem, other / part / f"{stem}.safetensors")
    if library == "transformers":
        found = load(plan(TransformersLoader(), transformers.LlamaForCausalLM, ours)).model
        theirs = transformers.LlamaForCausalLM.from_pretrained(ours)
    else:
        found = load(plan(DiffusersLoader(), diffusers.DDPMPipeline, ours)).model.unet
        theirs = diffusers.DDPMPipeline.from_pretrained(ours).unet
    same_modules(found, theirs.eval())


@pytest.mark.parametrize("library", ["transformers", "diffusers"])
def test_shards_that_do_not_belong_together(tmp_path: Path, library: str) -> None:
    two_saves(tmp_path, library, 1, max_shard_size="30KB")
    folder, stem = (tmp_path, "model") if library == "transformers" else (tmp_path / "unet", "diffusion_pytorch_model")
    kind, loader = (
        (transformers.LlamaForCausalLM, TransformersLoader()) if library == "transformers" else (diffusers.DDPMPipeline, DiffusersLoader())
    )
    index = folder / f"{stem}.safetensors.index.json"
    content = json.loads(index.read_text())
    shards = sorted(set(content["weight_map"].values()))
    assert len(shards) > 2
    load(plan(loader, kind, tmp_path))

    lost = sorted(name for name, file in content["weight_map"].items() if file == shards[1])
    short = {name: file for name, file in content["weight_map"].items() if file != shards[1]}
    index.write_text(json.dumps({**content, "weight_map": short}))
    with pytest.raises(FatalError, match=f"lack '{re.escape(lost[0])}'"):  # the shard is there, and its index does not know it
        load(plan(loader, kind, tmp_path))

    index.write_text(json.dumps(content))
    (folder / shards[1]).unlink()
    with pytest.raises(FatalError, match=rf"{index.name} names '{shards[1]}', which .* lacks"):
        load(plan(loader, kind, tmp_path))

    index.unlink()
    with pytest.raises(FatalError, match=rf"{shards[0]} is a shard that is in no index"):
        load(plan(loader, kind, tmp_path))


def test_variants_that_the_library_loads(tmp_path: Path) -> None:
    """A file of a variant, and keys that only the library understands."""
    saved(tmp_path, "LlamaForCausalLM")
    transformers.LlamaForCausalLM.from_pretrained(tmp_path).half().save_pretrained(tmp_path, variant="fp16")
    (tmp_path / "model.safetensors").unlink()
    theirs = transformers.LlamaModel.from_pretrained(tmp_path, variant="fp16", dtype=torch.float32)
    same_modules(load(plan(TransformersLoader(), transformers.LlamaModel, tmp_path), fast=False).model, theirs.eval())


def test_an_authors_subclass_is_loaded_as_its_library_does(tmp_path: Path) -> None:
    class Mine(transformers.LlamaForCausalLM):  # type: ignore[misc, name-defined]
        pass

    saved(tmp_path, "LlamaForCausalLM")
    assert not json.loads((tmp_path / "config.json").read_text())["tie_word_embeddings"]
    found = plan(TransformersLoader(), Mine, tmp_path)
    same_modules(load(found).model, Mine.from_pretrained(tmp_path).eval())


def tiny_llama(folder: Path, **how: Any) -> Any:
    torch.manual_seed(1)
    config = transformers.LlamaConfig(
        hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, vocab_size=512, **how
    )
    model = transformers.LlamaForCausalLM(config).eval()
    model.save_pretrained(folder, max_shard_size="100KB")
    return model


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", ["AutoModelForCausalLM", "LlamaForCausalLM"])
def test_a_sharded_language_model(tmp_path: Path, kind: str, tied: bool) -> None:
    original = tiny_llama(tmp_path, tie_word_embeddings=tied)
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    ours = load(plan(TransformersLoader(), getattr(transformers, kind), tmp_path)).model
    same_modules(ours, original)
    ids = torch.tensor([[1, 2, 3, 4]])
    assert torch.equal(ours(ids).logits, original(ids).logits)
    assert (ours.lm_head.weight is ours.model.embed_tokens.weight) == tied
    assert ours.generate(ids, max_new_tokens=3, do_sample=False).shape == (1, 7)


def test_a_base_model_out_of_a_checkpoint_with_a_head(tmp_path: Path) -> None:
    """The keys have a prefix that the module lacks: the library knows what to do, and is asked."""
    tiny_llama(tmp_path)
    same_modules(
        load(plan(TransformersLoader(), transformers.LlamaModel, tmp_path), fast=False).model,
        transformers.LlamaModel.from_pretrained(tmp_path).eval(),
    )


def test_files_that_cannot_be_true(tmp_path: Path) -> None:
    tiny_llama(tmp_path)
    shard = sorted(tmp_path.glob("*.safetensors"))[0]
    shard.write_bytes(shard.read_bytes()[:-10])
    with pytest.raises(FatalError, match=f"{shard.name}: its tensors take"):
        plan(TransformersLoader(), transformers.LlamaForCausalLM, tmp_path)
    shard.unlink()
    with pytest.raises(FatalError, match=f"names '{shard.name}', which the repository lacks"):
        plan(TransformersLoader(), transformers.LlamaForCausalLM, tmp_path)
