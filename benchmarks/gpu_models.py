"""Loading, swapping and drawing on a real GPU: ceilings first, then ours against the libraries. About 15 minutes on an H100; prints Markdown.

python benchmarks/gpu_models.py [--folder DIR] [--device cuda] [--models sd15,sdxl,flux] [--tiny]

Weights are random and made on the spot (the UNets of SD 1.5 and SDXL, 1.7 and 5 GB, FLUX's transformer of 24 GB). fastsafetensors and flashpack
are compared where they are installed. `--tiny --device cpu` tries the script itself.
"""

import argparse
import asyncio
import gc
import io
import os
import platform
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import diffusers
import torch
from gpu_ceilings import Machine
from safetensors.torch import load_file

from gen_worker.content.measured import Measurements
from gen_worker.content.progress import Progress
from gen_worker.log import Log
from gen_worker.residency.accounting import ModelCache
from gen_worker.residency.device import PinnedBuffer, TorchDevice
from gen_worker.residency.host_tier import HostTier
from gen_worker.residency.loaders.base import LoadControl, Loaded, LoadPlan, PartPlan
from gen_worker.residency.loaders.weights import find_weights, load_module, loaded_bytes
from gen_worker.residency.loads import Residency

SDXL = {
    "sample_size": 128, "block_out_channels": (320, 640, 1280), "layers_per_block": 2, "transformer_layers_per_block": (1, 2, 10),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"), "attention_head_dim": (5, 10, 20), "cross_attention_dim": 2048,
    "addition_embed_type": "text_time", "addition_time_embed_dim": 256, "projection_class_embeddings_input_dim": 2816,
    "use_linear_projection": True,
}  # fmt: skip
TINY = {**SDXL, "block_out_channels": (32, 32, 64), "transformer_layers_per_block": 1, "attention_head_dim": 2, "sample_size": 16}
SD15 = {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8}
OPTIONS = {"sd15": SD15, "sdxl": SDXL, "flux": {}}
TINY_OPTIONS = {
    "sd15": {**SD15, "block_out_channels": (32, 32, 64, 64), "sample_size": 16},
    "sdxl": TINY,
    "flux": {"num_layers": 1, "num_single_layers": 1, "num_attention_heads": 2, "joint_attention_dim": 64},
}
MARGIN_BYTES = 3_500_000_000


class Bench:
    """One device, one folder."""

    def __init__(self, device: str, folder: Path, *, tiny: bool) -> None:
        self.device = device
        self.folder = folder
        self.tiny = tiny
        self.cuda = device.startswith("cuda")
        self.place = TorchDevice(device)

    def sync(self) -> None:
        if self.cuda:
            torch.cuda.synchronize(self.device)

    def timed(self, work: Callable[[], Any], first: Callable[[], Any] = lambda: None) -> float:
        gc.collect()
        self.place.collect()
        first()
        self.sync()
        began = time.perf_counter()
        kept = work()
        self.sync()
        seconds = time.perf_counter() - began
        del kept
        return seconds

    def make(self, name: str) -> tuple[Any, Path]:
        """A model class, and a folder with random weights of it."""
        kind = diffusers.FluxTransformer2DModel if name == "flux" else diffusers.UNet2DConditionModel
        options = (TINY_OPTIONS if self.tiny else OPTIONS)[name]
        folder = self.folder / name
        if not folder.exists():
            dtype = torch.bfloat16 if name == "flux" else torch.float16
            before = torch.get_default_dtype()
            torch.set_default_dtype(dtype)
            with torch.device(self.device):
                model = kind(**options)
            torch.set_default_dtype(before)
            model.to("cpu").save_pretrained(folder, max_shard_size="10GB")
            del model
            gc.collect()
            self.place.collect()
        return kind, folder

    # 2

    def load_fast(self, kind: Any, folder: Path, place: TorchDevice | None = None) -> Any:
        files = find_weights(folder, ("fp16", "bf16"))
        config = kind.load_config(str(folder))
        dtype = torch.bfloat16 if "flux" in folder.name else torch.float16
        make = partial(kind.from_config, config)
        return load_module(make, files, place or self.place, dtype, _control(), cast_buffers=True)[0]

    def loads(self, names: list[str], copy_rate: float, disk_rate: float) -> None:
        print("\n## Loading\n\nShares are of the ceilings above: of the disk for cold files, else of pinned copies.\n")
        print("| model | GB | cold s | share | page cache s | share | pinned host memory s | share |\n|---|---|---|---|---|---|---|---|")
        others = []
        for name in names:
            kind, folder = self.make(name)
            files = [file.path for file in find_weights(folder, ("fp16", "bf16"))]
            size = sum(path.stat().st_size for path in files)
            pinned = TorchDevice(self.device, HostTier(size * 2, PinnedBuffer)) if self.cuda else self.place
            ours = partial(self.load_fast, kind, folder)
            cold = min(self.timed(ours, first=partial(_forget, files)) for _ in range(2))
            warm = min(self.timed(ours) for _ in range(3))
            self.load_fast(kind, folder, pinned)  # fills the tier
            host = min(self.timed(partial(self.load_fast, kind, folder, pinned)) for _ in range(3))
            shares = (size / 1e9 / min(disk_rate, copy_rate) / cold, size / 1e9 / copy_rate / warm, size / 1e9 / copy_rate / host)
            times = " | ".join(f"{s:.3f} | {share:.2f}" for s, share in zip((cold, warm, host), shares, strict=True))
            print(f"| {name} | {size / 1e9:.2f} | {times} |", flush=True)
            others.append((name, warm, self.rivals(kind, folder, files)))
        print("\n| page cache hot: seconds / ours | " + " | ".join(others[0][2]) + " |\n|---|" + "---|" * len(others[0][2]))
        for name, mine, found in others:
            print(f"| {name} | " + " | ".join(f"{s / mine:.2f}" if s else "not installed" for s in found.values()) + " |", flush=True)

    def rivals(self, kind: Any, folder: Path, files: list[Path]) -> dict[str, float]:
        """Seconds of other ways to have the same weights on the device; 0 for one that is not installed."""
        dtype = torch.bfloat16 if "flux" in folder.name else torch.float16

        def library() -> Any:
            return kind.from_pretrained(folder, **{_dtype_option(): dtype}).to(self.device)

        def load_files() -> Any:
            return [load_file(path, device=self.device) for path in files]

        def fastsafetensors() -> Any:
            from fastsafetensors import SafeTensorsFileLoader, SingleGroup

            loader = SafeTensorsFileLoader(SingleGroup(), self.device, nogds=True)
            loader.add_filenames({0: [str(path) for path in files]})
            buffers = loader.copy_files_to_device()
            tensors = {name: buffers.get_tensor(name).clone() for name in buffers.key_to_rank_lidx}
            buffers.close()
            loader.close()
            return tensors

        def flashpack() -> Any:
            from flashpack import assign_from_file, pack_to_file

            packed = folder / "model.flashpack"
            if not packed.exists():
                pack_to_file(self.load_fast(kind, folder), str(packed), dtype)
            with torch.device("meta"):
                model = kind.from_config(kind.load_config(str(folder)))
            assign_from_file(model, str(packed), device=self.device)
            return model

        found = {}
        for name, work in (
            ("from_pretrained().to()", library),
            ("safetensors load_file", load_files),
            ("fastsafetensors", fastsafetensors),
            ("flashpack", flashpack),
        ):
            try:
                self.timed(work)
                found[name] = min(self.timed(work) for _ in range(3))
            except ImportError:
                found[name] = 0.0
        return found

    # 3

    def swaps(self, name: str, count: int) -> None:
        kind, folder = self.make(name)
        size = loaded_bytes(find_weights(folder, ("fp16", "bf16")), 2)
        cache = ModelCache(max_vram_gb=size * 1.5 / 1e9)
        plans = [self._plan(kind, folder, f"{name}{n}", size) for n in range(2)]
        before = self.place.memory().free_bytes
        seconds: list[float] = []

        async def run() -> None:
            residency = Residency(cache, lambda: self.place, Measurements(None), Log(io.StringIO()))
            for number in range(count):
                plan = plans[number % 2]
                began = time.perf_counter()
                await residency.load(f"{name}{number % 2}#m", plan, Progress(name), threading.Event())
                self.sync()
                seconds.append(time.perf_counter() - began)
                residency.release_load(plan)
            held = cache.ledger.used_bytes
            self.place.collect()
            taken = before - self.place.memory().free_bytes
            print(
                f"\n## Swaps\n\n{count} alternating loads of {name}: p50 {statistics.median(seconds):.3f} s, last ten {statistics.median(seconds[-10:]):.3f} s."
            )
            print(f"Ledger {held / 1e9:.3f} GB, device {taken / 1e9:.3f} GB more than before.")
            for number in range(2):
                cache.unload_model(f"{name}{number}#m")
            residency.forget_dropped()
            residency.close()

        asyncio.run(run())
        self.place.collect()
        print(f"After unloading: {(before - self.place.memory().free_bytes) / 1e6:.1f} MB more than before.")

    def _plan(self, kind: Any, folder: Path, name: str, size: int) -> LoadPlan:
        part = PartPlan(name, size, lambda control: (self.load_fast(kind, folder), size))
        return LoadPlan((part,), lambda parts: Loaded(next(iter(parts.values())), size, lambda: None))

    # 4 to 7

    def step(self, unet: Any, edge: int, generator: Any = None) -> Any:
        """One denoising step of SDXL for pictures of this size."""
        dtype = next(unet.parameters()).dtype
        latents = torch.randn(1, 4, edge // 8, edge // 8, generator=generator).to(self.device, dtype)
        text = torch.zeros(1, 77, 2048, device=self.device, dtype=dtype)
        extra = {
            "text_embeds": torch.zeros(1, 1280, device=self.device, dtype=dtype),
            "time_ids": torch.zeros(1, 6, device=self.device, dtype=dtype),
        }
        with torch.inference_mode():
            return unet(latents, torch.tensor(10, device=self.device), text, added_cond_kwargs=extra).sample

    def drawing(self) -> None:
        kind, folder = self.make("sdxl")
        unet = self.load_fast(kind, folder)
        if self.tiny:
            unet = unet.float()
        print("\n## One step of SDXL\n\n| picture | peak beyond weights GB | s |\n|---|---|---|")
        for edge in (128,) if self.tiny else (512, 768, 1024, 1536):
            peak = 0.0
            if self.cuda:
                torch.cuda.reset_peak_memory_stats(self.device)
                held = torch.cuda.memory_allocated(self.device)
            self.step(unet, edge)
            seconds = self.timed(lambda edge=edge: self.step(unet, edge))
            if self.cuda:
                peak = (torch.cuda.max_memory_allocated(self.device) - held) / 1e9
            print(f"| {edge} | {peak:.2f} | {seconds:.4f} |")
        edge = 128 if self.tiny else 1024
        if self.cuda:
            self.place.collect()
            ballast = torch.empty(max(0, self.place.memory().free_bytes - MARGIN_BYTES), dtype=torch.uint8, device=self.device)
            self.step(unet, edge)
            print(f"\nWith all but {MARGIN_BYTES / 1e9:.1f} GB of the device taken, a step of {edge} pixels runs.")
            del ballast
            self.place.collect()
        alone = min(self.timed(lambda: [self.step(unet, edge) for _ in range(5)]) for _ in range(2))
        loader = threading.Thread(target=lambda: self.load_fast(kind, folder))
        loader.start()
        beside = self.timed(lambda: [self.step(unet, edge) for _ in range(5)])
        loader.join()
        print(f"\nFive steps take {beside / alone:.2f} times as long while another UNet loads.")
        once = [self.step(unet, edge, torch.Generator().manual_seed(n)).cpu() for n in range(4)]
        found: dict[int, Any] = {}
        threads = [
            threading.Thread(target=lambda n=n: found.update({n: self.step(unet, edge, torch.Generator().manual_seed(n)).cpu()}))
            for n in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        apart = max(float((found[n] - once[n]).abs().max()) for n in range(4))
        print(f"Four steps at once from one model differ from the same one after the other by at most {apart:.1e}.")

    def out_of_memory(self) -> None:
        """A ballast that the ledger does not know of: the first allocation fails, eviction makes room."""
        if not self.cuda:
            return
        kind, folder = self.make("sdxl")
        size = loaded_bytes(find_weights(folder, ("fp16", "bf16")), 2)
        cache = ModelCache(max_vram_gb=size * 4 / 1e9)

        async def run() -> None:
            residency = Residency(cache, lambda: self.place, Measurements(None), Log(io.StringIO()))
            for number in range(2):
                plan = self._plan(kind, folder, f"m{number}", size)
                await residency.load(f"m{number}#m", plan, Progress("m"), threading.Event())
                residency.release_load(plan)
            self.place.collect()
            ballast = torch.empty(max(0, self.place.memory().free_bytes - size // 2), dtype=torch.uint8, device=self.device)
            plan = self._plan(kind, folder, "m2", size)
            await residency.load("m2#m", plan, Progress("m"), threading.Event())
            print(
                f"\n## Out of memory\n\n{residency.ooms} failed allocation, then loaded; {len(cache.get_vram_models())} models are on the device."
            )
            del ballast
            residency.close()

        asyncio.run(run())


def _forget(files: list[Path]) -> None:
    """Have the page cache drop these files."""
    for path in files:
        fd = os.open(path, os.O_RDONLY)
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)


def _control() -> LoadControl:
    return LoadControl(lambda size_bytes: None, threading.Event())


def _dtype_option() -> str:
    from gen_worker.residency.loaders.diffusers import _dtype_option as option

    return option()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--models", default="sd15,sdxl,flux")
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    name = torch.cuda.get_device_name(options.device) if options.device.startswith("cuda") else platform.machine()
    print(f"{name}; torch {torch.__version__}, diffusers {diffusers.__version__}, Python {platform.python_version()}")
    with tempfile.TemporaryDirectory(prefix="gen-worker-gpu-") as scratch:
        bench = Bench(options.device, options.folder or Path(scratch), tiny=options.tiny)
        machine = Machine(options.device, bench.folder, tiny=options.tiny)
        copy_rate, disk_rate = machine.to_device(), machine.from_disk()
        names = options.models.split(",")
        bench.loads(names, copy_rate, disk_rate)
        bench.swaps("sdxl", 10 if options.tiny else 200)
        bench.drawing()
        bench.out_of_memory()


if __name__ == "__main__":
    main()
