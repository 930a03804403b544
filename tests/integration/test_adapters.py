"""Adapters: the same pictures as the library makes, and no trace of them in shared objects."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests.loading import draw, load, plan
from tests.tiny_models import tiny_flux, tiny_sdxl

from gen_worker.authoring.adapters import LoraAdapter
from gen_worker.residency.loaders.diffusers import DiffusersLoader
from gen_worker.residency.loaders.lora import LoraLoader
from gen_worker.residency.loaders.transformers import TransformersLoader

MODELS = Path(__file__).parents[2] / "examples/models"
torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")
transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")
safetensors_torch = pytest.importorskip("safetensors.torch")
pytestmark = [
    pytest.mark.torch,
    pytest.mark.filterwarnings("ignore:Already found a `peft_config`"),
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`"),
    pytest.mark.filterwarnings("ignore:__array_:DeprecationWarning"),  # of some schedulers
]
BASE = MODELS / "digits-sd"
IN_TEXT_ENCODERS = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")
PARTS = {
    "unet": ("lora_unet_", ("to_q", "to_v")),
    "text_encoder": ("lora_te_", IN_TEXT_ENCODERS),
    "text_encoder_2": ("lora_te2_", IN_TEXT_ENCODERS),
}


def kohya(pipe: Any, *parts: str, seed: int = 1) -> dict[str, Any]:
    """An adapter in the keys of kohya's trainer, which name no part of a pipeline."""
    torch.manual_seed(seed)
    tensors = {}
    for part in parts:
        prefix, endings = PARTS[part]
        if part == "text_encoder" and hasattr(pipe, "text_encoder_2"):
            prefix = "lora_te1_"
        for name, layer in getattr(pipe, part).named_modules():
            if name.endswith(endings) and isinstance(layer, torch.nn.Linear):
                inner = name if part == "unet" or name.startswith("text_model") else f"text_model.{name}"
                key = prefix + inner.replace(".", "_")
                tensors[f"{key}.lora_down.weight"] = torch.randn(4, layer.in_features)
                tensors[f"{key}.lora_up.weight"] = torch.randn(layer.out_features, 4)
                tensors[f"{key}.alpha"] = torch.tensor(4.0)
    return tensors


def of_library(pipe: Any, *parts: str) -> dict[str, Any]:
    """The same in the library's own keys."""
    torch.manual_seed(1)
    tensors = {}
    for part in parts:
        for name, layer in getattr(pipe, part).named_modules():
            if name.endswith(PARTS[part][1]) and isinstance(layer, torch.nn.Linear):
                tensors[f"{part}.{name}.lora_A.weight"] = torch.randn(4, layer.in_features)
                tensors[f"{part}.{name}.lora_B.weight"] = torch.randn(layer.out_features, 4)
    return tensors


def digits() -> Any:
    return load(plan(DiffusersLoader(), diffusers.StableDiffusionPipeline, BASE))


@pytest.mark.parametrize("parts", [("unet",), ("text_encoder",), ("unet", "text_encoder")])
@pytest.mark.parametrize("make", [kohya, of_library])
def test_the_next_caller_gets_the_shared_model_as_it_was(tmp_path: Path, make: Any, parts: tuple[str, ...]) -> None:
    base = digits()
    plain = draw(base.view(), "seven")
    tensors = make(base.model, *parts)
    adapter = LoraAdapter(tensors, tmp_path / "k.safetensors")
    styled = adapter.apply(base.view(), 0.8)
    for part in ("unet", "vae", "text_encoder"):
        assert (getattr(styled, part) is getattr(base.model, part)) == (part not in parts), part
    changed = draw(styled, "seven")
    assert not (changed == plain).all()
    assert (draw(base.view(), "seven") == plain).all()
    assert not any(getattr(module, "peft_config", None) for module in (base.model.unet, base.model.text_encoder))
    assert (draw(adapter.apply(base.view(), 0.8), "seven") == changed).all(), "the file's tensors were changed"

    theirs = diffusers.StableDiffusionPipeline.from_pretrained(BASE, dtype=torch.float32)
    theirs.set_progress_bar_config(disable=True)
    theirs.load_lora_weights(dict(tensors), adapter_name="k")
    theirs.set_adapters(["k"], [0.8])
    assert (draw(theirs, "seven") == changed).all()


def test_the_adapter_that_is_named(tmp_path: Path) -> None:
    """A folder of several, or of a model and its adapter: the file that is named, or else the one that libraries read as an adapter."""
    for number, name in enumerate(("a", "b", "pytorch_lora_weights", "model")):
        safetensors_torch.save_file({"x.lora_A.weight": torch.full((1, 4 - number), float(number))}, tmp_path / f"{name}.safetensors")
    for number, path in ((0, "a.safetensors"), (1, "b.safetensors"), (2, ""), (3, "model.safetensors")):
        adapter = load(plan(LoraLoader(), LoraAdapter, tmp_path / path)).view()
        assert adapter.size_bytes == 4 * (4 - number), path


def test_each_of_two_text_encoders_gets_its_own_weights(tmp_path: Path) -> None:
    """SDXL has two, with layers of equal names: what a part computes with an adapter is what it says, and what it computed before is back
    for the next caller."""
    base = load(plan(DiffusersLoader(), diffusers.StableDiffusionXLPipeline, tiny_sdxl(tmp_path / "sdxl")))
    plain = draw(base.view(), "seven")
    every = ("unet", "text_encoder", "text_encoder_2")
    before = {part: {name: tensor.clone() for name, tensor in getattr(base.model, part).named_parameters()} for part in every}
    for make, parts in [(of_library, every), (kohya, every), *((of_library, (part,)) for part in every), (kohya, every[1:])]:
        tensors = make(base.model, *parts)
        safetensors_torch.save_file(tensors, tmp_path / "k.safetensors")
        adapter = load(plan(LoraLoader(), LoraAdapter, tmp_path / "k.safetensors")).view()
        styled = adapter.apply(base.view(), 0.8)
        ways = [tensors[name.replace(".lora_A", ".lora_B").replace("lora_down", "lora_up")] @ tensors[name]
                for name in tensors if "lora_A" in name or "lora_down" in name]  # fmt: skip
        for part in every:
            changed = getattr(styled, part)
            assert (changed is getattr(base.model, part)) == (part not in parts), (make, part)
            for layer in changed.modules():
                if hasattr(layer, "lora_A"):
                    torch.testing.assert_close(layer.get_delta_weight(*layer.lora_A), ways.pop(0) * 0.8)
        assert not ways, "weights without a layer"
        assert not (draw(styled, "seven") == plain).all()
        assert (draw(base.view(), "seven") == plain).all()
    for part in every:
        assert not getattr(getattr(base.model, part), "peft_config", None)
        now = dict(getattr(base.model, part).named_parameters())
        assert now.keys() == before[part].keys()
        assert all(torch.equal(now[name], tensor) for name, tensor in before[part].items())


@pytest.mark.parametrize("make", [kohya, of_library])
def test_weights_without_effect_are_named(tmp_path: Path, make: Any) -> None:
    """Libraries warn and go on, also with a layer that has one of its two matrices and a random one beside it."""
    base = load(plan(DiffusersLoader(), diffusers.StableDiffusionXLPipeline, tiny_sdxl(tmp_path / "sdxl")))
    every = ("unet", "text_encoder", "text_encoder_2")
    first = ".lora_down" if make is kohya else ".lora_A"

    def refusal(tensors: dict[str, Any]) -> str:
        with pytest.raises(ValueError, match=r"the adapter k\.safetensors does not fit StableDiffusionXLPipeline: ") as said:
            LoraAdapter(tensors, tmp_path / "k.safetensors").apply(base.view())
        return str(said.value)

    for part in every if make is of_library else every[2:]:
        good, own = make(base.model, *every), list(make(base.model, part))
        elsewhere = {(name.replace("to_q", "to_x").replace("fc1", "fc9") if name in own else name): good[name] for name in good}
        lost = sum(name in own and first in name and ("to_q" in name or "fc1" in name) for name in good)
        of = sum(first in name for name in good)
        said = refusal(elsewhere)
        assert f"{lost} of its {of} pairs of weights belong to no layer of this model: " in said
        assert "partial=True" in said
        assert "to_x" in said or "fc9" in said
        assert LoraAdapter(elsewhere, tmp_path / "k.safetensors").apply(base.view(), partial=True) is not None

        half = next(name for name in own if first in name)
        for missing in (half, half.replace("lora_down", "lora_up").replace("lora_A", "lora_B")):
            said = refusal({name: tensor for name, tensor in good.items() if name != missing})
            assert "it is not complete: " in said
            assert half.partition(first)[0] in said

        wide = {name: (torch.randn(4, 7) if name == half else tensor) for name, tensor in good.items()}
        assert f"{half} is (4, 7), and its layer takes (4, " in refusal(wide)
    assert not any(getattr(getattr(base.model, part), "peft_config", None) for part in every)


def test_an_adapter_that_fails_leaves_nothing(tmp_path: Path) -> None:
    """Some of its weights fit, so that the library has begun to change the pipeline when it finds out."""
    base = digits()
    plain = draw(base.view(), "seven")
    for break_it in (
        lambda t: t.update({name: torch.randn(4, 7) for name in list(t) if name.endswith("lora_down.weight") and "unet" in name}),
        lambda t: t.update({name: torch.randn(4, 7) for name in list(t) if name.endswith("lora_down.weight") and "te_" in name}),
        lambda t: t.update({"lora_unet_nowhere.lora_down.weight": torch.randn(4, 4)}),
    ):
        tensors = kohya(base.model, "unet", "text_encoder")
        break_it(tensors)
        try:
            LoraAdapter(tensors, tmp_path / "k.safetensors").apply(base.view())
        except ValueError as exc:
            assert "does not fit StableDiffusionPipeline" in str(exc)
        assert (draw(base.view(), "seven") == plain).all()
        assert not any(getattr(module, "peft_config", None) for module in (base.model.unet, base.model.text_encoder))


def test_callers_that_overlap(tmp_path: Path) -> None:
    """Adapters, plain runs and loads of other models at once: each as if it were alone. Libraries replace functions of torch meanwhile."""
    base = digits()
    adapters = [LoraAdapter(kohya(base.model, "unet", "text_encoder", seed=seed), tmp_path / f"{seed}.safetensors") for seed in range(3)]
    alone = [draw(adapter.apply(base.view(), 0.5), "seven") for adapter in adapters]
    plain = draw(base.view(), "seven")
    begin = threading.Barrier(6)

    def styled(number: int) -> bool:
        begin.wait()
        return all((draw(adapters[number].apply(base.view(), 0.5), "seven") == alone[number]).all() for _ in range(3))

    def unstyled() -> bool:
        begin.wait()
        return all((draw(base.view(), "seven") == plain).all() for _ in range(3))

    def loaded() -> bool:
        begin.wait()
        return all((draw(digits().view(), "seven") == plain).all() for _ in range(3))

    with ThreadPoolExecutor(6) as threads:
        results = [
            *(threads.submit(styled, number) for number in range(3)),
            threads.submit(unstyled),
            *(threads.submit(loaded) for _ in "ab"),
        ]
        assert all(result.result() for result in results)
    assert not torch.nn.Linear(2, 2).weight.is_meta, "a library's replacement of torch's functions was left behind"


def test_adapters_of_a_language_model(tmp_path: Path) -> None:
    torch.manual_seed(1)
    config = transformers.LlamaConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, vocab_size=128
    )
    transformers.LlamaForCausalLM(config).save_pretrained(tmp_path / "base")
    for name, rank in (("one", 2), ("two", 4)):
        made = transformers.LlamaForCausalLM.from_pretrained(tmp_path / "base")
        lora = peft.LoraConfig(r=rank, lora_alpha=8, target_modules=["q_proj", "v_proj"], init_lora_weights=False, use_rslora=name == "two")
        peft.get_peft_model(made, lora).save_pretrained(tmp_path / name)
    base = load(plan(TransformersLoader(), transformers.LlamaForCausalLM, tmp_path / "base"))
    ids = torch.tensor([[1, 2, 3]])
    some = safetensors_torch.load_file(tmp_path / "one/adapter_model.safetensors")
    torn = {name.replace("layers.1", "layers.7"): tensor for name, tensor in some.items()}
    with pytest.raises(ValueError, match=r"2 of its 4 pairs of weights belong to no layer .*layers\.7\.self_attn\.q_proj"):
        LoraAdapter(torn, tmp_path / "one").apply(base.view())
    short = {name: tensor for name, tensor in some.items() if "layers.1" not in name}
    for tensors in (torn, short):
        with pytest.raises(ValueError, match=r"adapter_config.json names layers that its weights lack: .*layers\.1\.self_attn\.q_proj"):
            LoraAdapter(tensors, tmp_path / "one").apply(base.view(), partial=True)
    with torch.inference_mode():
        plain = base.view()(ids).logits
        one, two = (load(plan(LoraLoader(), LoraAdapter, tmp_path / name)).view() for name in ("one", "two"))
        for adapter, name in ((one, "one"), (two, "two")):
            theirs = peft.PeftModel.from_pretrained(
                transformers.LlamaForCausalLM.from_pretrained(tmp_path / "base"), tmp_path / name
            ).eval()
            assert torch.equal(adapter.apply(base.view())(ids).logits, theirs(ids).logits)
            for layer in theirs.modules():
                if hasattr(layer, "set_scale"):
                    layer.set_scale("default", 0.5)
            assert torch.equal(adapter.apply(base.view(), 0.5)(ids).logits, theirs(ids).logits)
        both = two.apply(one.apply(base.view(), 0.5), 0.25)(ids).logits
        assert not torch.equal(both, one.apply(base.view(), 0.5)(ids).logits)
        assert not torch.equal(both, two.apply(base.view(), 0.25)(ids).logits)
        assert torch.equal(base.view()(ids).logits, plain)


def test_adapters_are_a_runs_own(tmp_path: Path) -> None:
    kind, base = diffusers.StableDiffusionPipeline, MODELS / "digits-sd"
    theirs = kind.from_pretrained(base, dtype=torch.float32, low_cpu_mem_usage=False)
    theirs.set_progress_bar_config(disable=True)
    plain = draw(theirs, "seven")
    torch.manual_seed(2)
    targets = ["to_q", "to_v", "to_k", "to_out.0"]
    theirs.unet.add_adapter(peft.LoraConfig(r=2, target_modules=targets, init_lora_weights=False), "made")
    kind.save_lora_weights(tmp_path, unet_lora_layers=peft.get_peft_model_state_dict(theirs.unet, adapter_name="made"))
    theirs.delete_adapters("made")
    theirs.load_lora_weights(tmp_path, adapter_name="read")
    theirs.set_adapters(["read"], [0.5])
    changed = draw(theirs, "seven")
    assert not (changed == plain).all()

    ours = load(plan(DiffusersLoader(), kind, base))
    adapter = load(plan(LoraLoader(), LoraAdapter, tmp_path)).view()
    assert adapter.size_bytes > 0
    styled = adapter.apply(ours.view(), 0.5)
    assert (draw(styled, "seven") == changed).all()
    assert (draw(ours.view(), "seven") == plain).all()
    assert styled.unet is not ours.model.unet
    assert styled.unet.conv_in.weight.data_ptr() == ours.model.unet.conv_in.weight.data_ptr()
    twice = adapter.apply(adapter.apply(ours.view(), 0.25), 0.25)
    assert abs(draw(twice, "seven") - changed).max() < 1e-3
    narrow = adapter.apply(load(plan(DiffusersLoader(), kind, base, ("fp8", "fp32"))).view(), 0.5)
    assert abs(draw(narrow, "seven") - changed).mean() < 0.03
    with pytest.raises(ValueError, match="does not fit"):
        adapter.apply(load(plan(DiffusersLoader(), diffusers.DiffusionPipeline, tiny_flux(tmp_path / "flux"))).view())
