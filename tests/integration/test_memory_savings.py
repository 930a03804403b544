"""Running a pipeline with less memory: the same pictures, with each further saving."""

import asyncio
import io
import json
import struct
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gen_worker.content.measured import LOAD, Measurements
from gen_worker.content.progress import Progress
from gen_worker.log import Log
from gen_worker.residency.accounting import ModelCache
from gen_worker.residency.device import TorchDevice
from gen_worker.residency.loaders.base import LoadControl, Loaded, LoadPlan, LoadRequest, PartPlan
from gen_worker.residency.loaders.diffusers import DiffusersLoader
from gen_worker.residency.loaders.frugal import is_kept_off, keep_off, steps_of
from gen_worker.residency.loaders.weights import find_weights, load_tensors
from gen_worker.residency.loads import Residency
from gen_worker.runtime.registration import model_tiers
from gen_worker.testing.fakes import FakeDevice

DIGITS = Path(__file__).parents[2] / "examples/models/digits-sd"
torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")
pytestmark = pytest.mark.torch
DEVICE = TorchDevice("cpu")


def request() -> LoadRequest:
    return LoadRequest(diffusers.StableDiffusionPipeline, DIGITS, lambda: DEVICE, ("fp16",))


def load() -> Loaded:
    plan = DiffusersLoader().plan(request())
    control = LoadControl(lambda size_bytes: None, threading.Event())
    return plan.assemble({part.part_id: part.load(control)[0] for part in plan.parts})


def draw(pipe: Any, seed: int) -> Any:
    generator = torch.Generator().manual_seed(seed)
    return pipe("seven", num_inference_steps=2, height=32, width=32, output_type="np", generator=generator).images


def test_a_run_that_has_nothing_to_push_out_takes_the_next_saving() -> None:
    log = io.StringIO()
    cache = ModelCache(max_vram_gb=1)
    residency = Residency(cache, lambda: DEVICE, Measurements(None), Log(log))

    async def loaded(name: str) -> Loaded:
        wanted = msgspec.structs.replace(request(), saving_level=residency.saving_level_of(name))
        plan = await residency.plan(name, lambda: DiffusersLoader().plan(wanted))
        found = await residency.load(name, plan, Progress(name), threading.Event())
        residency.release_load(plan)
        return found

    async def run() -> None:
        assert not (await loaded("digits#Pipe")).model.vae.use_tiling
        cache.pin("digits#Pipe")
        await residency.relieve({"digits"})
        assert residency.saving_level_of("digits#Pipe") == 0, "another run has it: without that one there may be enough"
        cache.unpin("digits#Pipe")
        await residency.relieve({"digits"})
        assert not cache.is_in_vram("digits#Pipe")
        again = await loaded("digits#Pipe")
        assert again.model.vae.use_tiling
        assert again.model.vae.use_slicing
        assert draw(again.view(), 1).shape == (1, 32, 32, 3)
        await residency.relieve({"digits"})
        residency.close()

    asyncio.run(run())
    lines = log.getvalue().splitlines()
    assert ["step=vae_tiling" in line for line in lines if "model.economized" in line] == [True]
    assert len([line for line in lines if "model.does_not_fit" in line]) == 1


def test_weights_that_wait_in_host_memory_draw_the_same_also_at_once() -> None:
    expected = [draw(load().view(), seed) for seed in range(4)]
    loaded = load()
    keep_off(loaded.model.text_encoder, "cpu")
    keep_off(loaded.model.unet, "cpu")
    with ThreadPoolExecutor(4) as threads:
        pictures = list(threads.map(lambda seed: draw(loaded.view(), seed), range(4)))
    for picture, same in zip(pictures, expected, strict=True):
        assert (picture == same).all()


def test_what_host_memory_holds_is_reported(tmp_path: Path) -> None:
    device = FakeDevice(64 << 20, host_bytes=32 << 20)
    size = 17 << 20
    header = json.dumps({"w": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(size))
    files = find_weights(tmp_path, ())

    def load_part(control: LoadControl) -> tuple[Any, int]:
        return load_tensors(files, device, control), size

    part = PartPlan("w", size, load_part, tuple(file.path for file in files))
    plan = LoadPlan((part,), lambda parts: Loaded(dict(parts), size, lambda: None))
    cache = ModelCache(max_vram_gb=1)
    measured = Measurements(None)
    residency = Residency(cache, lambda: device, measured, Log(io.StringIO()))

    async def run() -> None:
        assert residency.in_host_memory() == {}
        await residency.plan("demo/m#Weights", lambda: plan)
        await residency.load("demo/m#Weights", plan, Progress("demo/m"), threading.Event())
        residency.close()

    asyncio.run(run())
    assert residency.in_host_memory() == {"demo/m": size}
    tiers = {(tier.model_id, tier.tier): tier.size_bytes for tier in model_tiers(cache, residency.in_host_memory())}
    assert tiers == {("demo/m", "vram"): size, ("demo/m", "host"): size}
    assert measured.rate(LOAD) > 0
    (tmp_path / "model.safetensors").unlink()
    assert residency.in_host_memory() == {}


def test_what_waits_where() -> None:
    steps = steps_of(TorchDevice("cuda:1"))
    assert steps == ("vae_tiling", "text_encoders_off", "group_offload")
    off = [[name for name in ("text_encoder", "text_encoder_2", "unet", "vae") if is_kept_off(name, steps[:taken])] for taken in range(4)]
    assert off == [[], [], ["text_encoder", "text_encoder_2"], ["text_encoder", "text_encoder_2", "unet"]]
    one = DiffusersLoader().plan(request())
    assert steps_of(DEVICE) == one.savings == ("vae_tiling",)
