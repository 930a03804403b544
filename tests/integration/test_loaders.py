"""Loaders against the libraries' own loading: the same weights, the same outputs, parts shared and accounted."""

import asyncio
import copy
import importlib.util
import io
import random
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests.loading import DEVICE, draw, load, plan, same_modules
from tests.tiny_models import tiny_flux, tiny_sdxl

from gen_worker.content.measured import Measurements
from gen_worker.content.progress import Progress
from gen_worker.errors import FatalError, ResourceError
from gen_worker.log import Log
from gen_worker.residency.accounting import ModelCache
from gen_worker.residency.device import DeviceFullError
from gen_worker.residency.ledger import Part
from gen_worker.residency.loaders.base import LoadControl, Loaded, LoadPlan, LoadRequest, PartPlan
from gen_worker.residency.loaders.diffusers import DiffusersLoader
from gen_worker.residency.loaders.onnx import OnnxLoader, onnx_file, providers_for
from gen_worker.residency.loaders.transformers import TransformersLoader
from gen_worker.residency.loads import Residency
from gen_worker.testing.fakes import FakeDevice

MODELS = Path(__file__).parents[2] / "examples/models"
torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.torch


def test_digits_draw_the_same_as_by_the_library() -> None:
    theirs = diffusers.StableDiffusionPipeline.from_pretrained(MODELS / "digits-sd", dtype=torch.float32, low_cpu_mem_usage=False)
    theirs.set_progress_bar_config(disable=True)
    ours = load(plan(DiffusersLoader(), diffusers.StableDiffusionPipeline, MODELS / "digits-sd"))
    for name in ("unet", "vae", "text_encoder"):
        same_modules(getattr(ours.model, name), getattr(theirs, name))
    assert (draw(ours.view(), "seven") == draw(theirs, "seven")).all()


@pytest.mark.parametrize("make", [tiny_sdxl, tiny_flux])
def test_other_pipelines_load_as_by_the_library(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    folder = make(tmp_path / "model")
    theirs = diffusers.DiffusionPipeline.from_pretrained(folder, dtype=torch.float32, low_cpu_mem_usage=False)
    found = plan(DiffusersLoader(), diffusers.DiffusionPipeline, folder)
    ours = load(found)
    assert type(ours.model) is type(theirs)
    modules = {name: part for name, part in theirs.components.items() if isinstance(part, torch.nn.Module)}
    assert len(found.parts) == len(modules) >= 4
    for name, module in modules.items():
        same_modules(getattr(ours.model, name), module)
    assert sum(part.size_bytes for part in found.parts) == pytest.approx(ours.size_bytes, rel=0.02)


def test_weights_kept_in_eight_bits_draw_nearly_the_same() -> None:
    kind = diffusers.StableDiffusionPipeline
    plans = {
        name: plan(DiffusersLoader(), kind, MODELS / "digits-sd", dtypes)
        for name, dtypes in {"wide": ("fp32",), "narrow": ("fp8", "fp32")}.items()
    }
    wide, narrow = (load(found) for found in plans.values())
    ids = {name: {part.part_id for part in found.parts} for name, found in plans.items()}
    assert len(ids["wide"] & ids["narrow"]) == 2  # VAE and text encoder are shared, the UNet is not
    sizes = {
        name: sum(t.nbytes for t in (*loaded.model.unet.parameters(), *loaded.model.unet.buffers()))
        for name, loaded in (("wide", wide), ("narrow", narrow))
    }
    assert sizes["narrow"] < 0.35 * sizes["wide"]
    assert narrow.model.unet.dtype == torch.float32
    for name, theirs in wide.model.unet.named_parameters():
        ours = narrow.model.unet.get_submodule(name.rpartition(".")[0]).weight if name.endswith("weight") else None
        if ours is not None:
            assert (ours - theirs).abs().max() <= theirs.abs().max() / 16, name
    drawn = draw(narrow.view(), "seven")
    assert abs(drawn - draw(wide.view(), "seven")).mean() < 0.03
    assert (drawn == draw(narrow.view(), "seven")).all()


def test_eight_bits_of_several_files_and_of_files_in_eight_bits(tmp_path: Path) -> None:
    folder = tiny_flux(tmp_path / "model")
    pipe = diffusers.FluxPipeline.from_pretrained(folder, dtype=torch.bfloat16)
    pipe.transformer.save_pretrained(folder / "transformer", max_shard_size="20KB")
    (folder / "transformer/diffusion_pytorch_model.safetensors").unlink()
    assert len(list((folder / "transformer").glob("*.safetensors"))) > 2
    narrow = load(plan(DiffusersLoader(), diffusers.FluxPipeline, folder, ("fp8",))).model.transformer
    expected = pipe.transformer.transformer_blocks[0].attn.to_q.weight.float()
    assert type(narrow.transformer_blocks[0].attn.to_q).__name__ == "Fp8Linear"
    assert isinstance(narrow.transformer_blocks[0].attn.to_q, torch.nn.Linear)
    assert (narrow.transformer_blocks[0].attn.to_q.weight - expected).abs().max() <= expected.abs().max() / 16
    assert type(narrow.x_embedder) is torch.nn.Linear  # outside the blocks

    import safetensors.torch

    for file in (folder / "transformer").glob("*.safetensors"):
        tensors = {name: t.to(torch.float8_e4m3fn) for name, t in safetensors.torch.load_file(file).items()}
        safetensors.torch.save_file(tensors, file)
    kept = load(plan(DiffusersLoader(), diffusers.FluxPipeline, folder, ("fp8",))).model.transformer
    assert torch.equal(kept.transformer_blocks[0].attn.to_q.weight_fp8.float(), expected.to(torch.float8_e4m3fn).float())


def test_precision_variants_and_what_stays_in_float32(tmp_path: Path) -> None:
    folder = tiny_sdxl(tmp_path / "model")
    pipe = diffusers.DiffusionPipeline.from_pretrained(folder, dtype=torch.float16)
    pipe.save_pretrained(tmp_path / "half", variant="fp16")
    ours = load(plan(DiffusersLoader(), diffusers.DiffusionPipeline, tmp_path / "half"))
    theirs = diffusers.DiffusionPipeline.from_pretrained(tmp_path / "half", variant="fp16", dtype=torch.float32)
    same_modules(ours.model.unet, theirs.unet)


def test_pipelines_share_equal_components() -> None:
    async def both() -> tuple[ModelCache, list[Loaded], list[LoadPlan]]:
        cache = ModelCache(max_vram_gb=1)
        residency = Residency(cache, lambda: DEVICE, Measurements(None), Log(io.StringIO()))
        loaded, plans = [], []
        for name in ("digits-sd", "digits-sd-slanted"):
            found = plan(DiffusersLoader(), diffusers.StableDiffusionPipeline, MODELS / name)
            loaded.append(await residency.load(f"{name}#pipe", found, Progress(name), threading.Event()))
            plans.append(found)
        residency.close()
        return cache, loaded, plans

    cache, (one, two), plans = asyncio.run(both())
    assert one.model.vae is two.model.vae
    assert one.model.text_encoder is two.model.text_encoder
    assert one.model.unet is not two.model.unet
    alone = sum(part.size_bytes for found in plans for part in found.parts)
    unique = {part.part_id: part.size_bytes for found in plans for part in found.parts}
    assert len(unique) == 4
    assert cache.ledger.used_bytes == pytest.approx(sum(unique.values()), rel=0.01)
    assert cache.ledger.used_bytes < alone
    # One goes: what the other shares stays.
    for found in plans:
        cache.ledger.unpin([part.part_id for part in found.parts])
    assert cache.unload_from_vram("digits-sd#pipe") > 0
    assert cache.is_in_vram("digits-sd-slanted#pipe")


def test_onnx_sessions() -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    package = importlib.util.find_spec("rapidocr_onnxruntime")  # its files alone: the package wants more than it is used for
    if package is None or package.origin is None:
        pytest.skip("rapidocr_onnxruntime is not installed")
    folder = Path(package.origin).parent / "models"
    file = next(iter(sorted(folder.glob("*det*.onnx"))))
    found = plan(OnnxLoader(), onnxruntime.InferenceSession, file)
    loaded = load(found)
    assert loaded.model.get_inputs()
    assert loaded.size_bytes == file.stat().st_size
    with pytest.raises(FatalError, match=r"expected one \.onnx file"):
        onnx_file(folder)


def test_onnx_sessions_go_where_the_run_is() -> None:
    assert providers_for("cpu") == providers_for("mps") == ["CPUExecutionProvider"]
    assert providers_for("cuda:1") == [("CUDAExecutionProvider", {"device_id": "1"}), "CPUExecutionProvider"]
    assert providers_for("cuda")[0] == ("CUDAExecutionProvider", {"device_id": "0"})


class _Slabs:
    """A model of one slab on a fake device."""

    def __init__(self, device: FakeDevice, name: str, size: int) -> None:
        self.device, self.name, self.size = device, name, size

    def plan(self) -> LoadPlan:
        def load(control: LoadControl) -> tuple[Any, int]:
            return self.device.new_slab(self.size), self.size

        return LoadPlan((PartPlan(self.name, self.size, load),), lambda parts: Loaded(dict(parts), self.size, lambda: None))


def test_out_of_memory_evicts_and_tries_again() -> None:
    """The books say that it fits; the device says no (another process, fragments): what is unused goes, and the load succeeds."""
    device = FakeDevice(100)
    cache = ModelCache(max_vram_gb=100e-9)

    async def run() -> None:
        residency = Residency(cache, lambda: device, Measurements(None), Log(io.StringIO()))
        for name in ("a", "b"):
            model = _Slabs(device, name, 30).plan()
            await residency.load(f"{name}#m", model, Progress(name), threading.Event())
            residency.release_load(model)
        device.taken_bytes = 30
        await residency.load("c#m", _Slabs(device, "c", 30).plan(), Progress("c"), threading.Event())
        assert residency.ooms == 1
        assert device.collections == 1
        # The second time it is known: nothing more is lost, and what cannot be had is said.
        device.taken_bytes = 100
        with pytest.raises(ResourceError, match="insufficient_vram"):
            await residency.load("d#m", _Slabs(device, "d", 60).plan(), Progress("d"), threading.Event())
        residency.close()

    asyncio.run(run())
    assert cache.is_in_vram("c#m")
    assert cache.ledger.used_bytes <= 100


def test_out_of_memory_evicts_what_is_missing_and_no_more() -> None:
    """Two models are idle, and another process has taken room: one of them is enough, so the other stays."""
    device = FakeDevice(100)
    cache = ModelCache(max_vram_gb=100e-9)

    async def run() -> None:
        residency = Residency(cache, lambda: device, Measurements(None), Log(io.StringIO()))
        for name in ("a", "b"):
            model = _Slabs(device, name, 30).plan()
            await residency.load(f"{name}#m", model, Progress(name), threading.Event())
            residency.release_load(model)
        device.taken_bytes = 25
        await residency.load("c#m", _Slabs(device, "c", 30).plan(), Progress("c"), threading.Event())
        assert residency.ooms == 1
        residency.close()

    asyncio.run(run())
    assert sorted(cache.get_vram_models()) == ["b#m", "c#m"]


def test_what_was_larger_than_its_files_tell_is_known_the_next_time(tmp_path: Path) -> None:
    """A part that takes 60 bytes though its plan says 10: the second time room for all of it is made beforehand."""
    device = FakeDevice(100)
    cache = ModelCache(max_vram_gb=100e-9)

    def liar() -> LoadPlan:
        return LoadPlan(
            (PartPlan("liar", 10, lambda control: (device.new_slab(60), 60)),), lambda parts: Loaded(dict(parts), 60, lambda: None)
        )

    async def run() -> None:
        residency = Residency(cache, lambda: device, Measurements(tmp_path / "measured.json"), Log(io.StringIO()))
        for number, (name, made) in enumerate([("a", _Slabs(device, "a", 50).plan()), ("liar", liar())] * 3):
            await residency.load(f"{name}#m", made, Progress(name), threading.Event())
            residency.release_load(made)
            assert residency.ooms == (0 if number == 0 else 1)
        residency.close()

    asyncio.run(run())
    assert cache.ledger.used_bytes <= 100


def test_memory_of_what_goes_is_free_at_once_on_a_busy_machine() -> None:
    """A thread that has loaded something may not hold on to it, however long it takes to come to its next work."""
    device = FakeDevice(100)
    cache = ModelCache(max_vram_gb=100e-9)
    ended, interval_s = threading.Event(), sys.getswitchinterval()

    def spin() -> None:
        while not ended.is_set():
            sum(range(1000))

    async def run() -> None:
        residency = Residency(cache, lambda: device, Measurements(None), Log(io.StringIO()))
        for number in range(400):
            model = _Slabs(device, f"m{number % 3}", 60).plan()
            await residency.load(f"m{number % 3}#m", model, Progress("m"), threading.Event())
            residency.release_load(model)
        assert residency.ooms == 0
        residency.close()

    busy = [threading.Thread(target=spin) for _ in range(3)]
    sys.setswitchinterval(1e-5)
    try:
        for thread in busy:
            thread.start()
        asyncio.run(run())
    finally:
        ended.set()
        sys.setswitchinterval(interval_s)
        for thread in busy:
            thread.join()


def test_a_thousand_cycles_leave_nothing(tmp_path: Path) -> None:
    device = FakeDevice(1000)
    cache = ModelCache(max_vram_gb=400e-9)
    dice = random.Random(1)

    async def run() -> None:
        residency = Residency(cache, lambda: device, Measurements(tmp_path / "measured.json"), Log(io.StringIO()))
        for _ in range(1000):
            name = f"m{dice.randrange(12)}"
            model = _Slabs(device, name, 30 + 10 * int(name[1:])).plan()
            await residency.load(f"{name}#m", model, Progress(name), threading.Event())
            residency.release_load(model)
            cache.ledger.check()
        residency.close()

    asyncio.run(run())
    device.collect()
    assert cache.ledger.used_bytes == device.allocated_bytes
    for name in cache.get_vram_models():
        cache.unload_model(name)
    assert cache.ledger.used_bytes == 0
    assert Measurements(tmp_path / "measured.json").of("m3") is not None
    with pytest.raises(DeviceFullError):
        device.new_slab(1001)
    assert cache.ledger.reserve([Part("x", 400)]) == (["x"], [])


def test_a_tokenizer_is_shared_by_threads_that_pad_differently() -> None:
    request = LoadRequest(transformers.AutoTokenizer, MODELS / "digits-sd/tokenizer", lambda: DEVICE, ("fp16",))
    tokenizer = load(TransformersLoader().plan(request)).view()
    pipe = load(plan(DiffusersLoader(), diffusers.StableDiffusionPipeline, MODELS / "digits-sd")).view()
    for shared in (tokenizer, pipe.tokenizer, copy.deepcopy(tokenizer)):

        def lengths(padding: Any, shared: Any = shared) -> set[int]:
            return {len(shared("seven", padding=padding, max_length=8, truncation=padding is not False).input_ids) for _ in range(1500)}

        with ThreadPoolExecutor(4) as threads:
            assert list(threads.map(lengths, ["max_length", False, "max_length", False])) == [{8}, {3}, {8}, {3}]
