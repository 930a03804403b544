"""Loading, swapping and drawing on a real GPU: ceilings first, then ours against the libraries. About 15 minutes on an H100; prints Markdown.

python benchmarks/gpu_models.py [--folder DIR] [--device cuda] [--models sdxl,flux] [--tiny]

Weights are random and made on the spot (SDXL's UNet of 5 GB, FLUX's transformer of 24 GB). `--tiny --device cpu` tries the script itself.
"""

import argparse
import asyncio
import gc
import io
import platform
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import torch
from safetensors.torch import load_file

from gen_worker.log import Log
from gen_worker.model_cache import ModelCache
from gen_worker.models.device import TorchDevice
from gen_worker.models.loaders.base import Loaded, LoadPlan, PartPlan
from gen_worker.models.loaders.weights import find_weights, load_module, loaded_bytes
from gen_worker.models.measured import Measurements
from gen_worker.models.progress import Progress
from gen_worker.models.residency import Residency

SDXL = {
    "sample_size": 128, "block_out_channels": (320, 640, 1280), "layers_per_block": 2, "transformer_layers_per_block": (1, 2, 10),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"), "attention_head_dim": (5, 10, 20), "cross_attention_dim": 2048,
    "addition_embed_type": "text_time", "addition_time_embed_dim": 256, "projection_class_embeddings_input_dim": 2816,
    "use_linear_projection": True,
}  # fmt: skip
TINY = {**SDXL, "block_out_channels": (32, 32, 64), "transformer_layers_per_block": 1, "attention_head_dim": 2, "sample_size": 16}
TINY_FLUX = {"num_layers": 1, "num_single_layers": 1, "num_attention_heads": 2, "joint_attention_dim": 64}


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

    def timed(self, work: Callable[[], Any]) -> float:
        gc.collect()
        self.place.collect()
        self.sync()
        began = time.perf_counter()
        kept = work()
        self.sync()
        seconds = time.perf_counter() - began
        del kept
        return seconds

    def make(self, name: str) -> tuple[Any, Path]:
        """A model class, and a folder with random weights of it."""
        kind = diffusers.UNet2DConditionModel if name == "sdxl" else diffusers.FluxTransformer2DModel
        options = (TINY if self.tiny else SDXL) if name == "sdxl" else (TINY_FLUX if self.tiny else {})
        folder = self.folder / name
        if not folder.exists():
            dtype = torch.float16 if name == "sdxl" else torch.bfloat16
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

    # 1

    def ceilings(self) -> float:
        """Host to device by block size, GB/s; the best of it."""
        print("\n## Ceilings\n\n| copy to the device | GB/s |\n|---|---|")
        best = 0.0
        total = (8 if self.tiny else 2048) << 20
        for block_mib in (1, 4, 16, 64, 256):
            block = min(block_mib << 20, total)
            source = torch.empty(block, dtype=torch.uint8, pin_memory=self.cuda)
            target = torch.empty(total, dtype=torch.uint8, device=self.device)

            def copy(source: Any = source, target: Any = target, block: int = block) -> None:
                for at in range(0, total, block):
                    target[at : at + block].copy_(source[: min(block, total - at)], non_blocking=True)

            rate = total / min(self.timed(copy) for _ in range(3)) / 1e9
            best = max(best, rate)
            print(f"| pinned, blocks of {block_mib} MiB | {rate:.2f} |", flush=True)
        pageable = torch.empty(total, dtype=torch.uint8)
        rate = total / min(self.timed(lambda: pageable.to(self.device)) for _ in range(3)) / 1e9
        print(f"| pageable | {rate:.2f} |")
        pin_s = self.timed(lambda: torch.empty(total, dtype=torch.uint8, pin_memory=self.cuda))
        print(f"\nPinning costs {pin_s / (total / 1e9) * 1000:.0f} ms a GB.")
        return best

    # 2

    def load_fast(self, kind: Any, folder: Path) -> Any:
        files = find_weights(folder, ("fp16", "bf16"))
        config = kind.load_config(str(folder))
        dtype = torch.float16 if "sdxl" in folder.name else torch.bfloat16
        control = _control()
        return load_module(lambda: kind.from_config(config), files, self.place, dtype, control, cast_buffers=True)[0]

    def loads(self, names: list[str], ceiling: float) -> None:
        print(
            "\n## Loading, page cache hot\n\n| model | GB | ours s | ours / ceiling | library s / ours | load_file s / ours |\n|---|---|---|---|---|---|"
        )
        for name in names:
            kind, folder = self.make(name)
            files = find_weights(folder, ("fp16", "bf16"))
            size = sum(file.data_end - file.data_start for file in files)
            dtype = torch.float16 if name == "sdxl" else torch.bfloat16

            def library(kind: Any = kind, folder: Path = folder, dtype: Any = dtype) -> Any:
                return kind.from_pretrained(folder, **{_dtype_option(): dtype}).to(self.device)

            def plain(files: Any = files) -> Any:
                return [load_file(file.path, device=self.device) for file in files]

            def ours(kind: Any = kind, folder: Path = folder) -> Any:
                return self.load_fast(kind, folder)

            self.timed(ours)
            turns = [(self.timed(ours), self.timed(library), self.timed(plain)) for _ in range(3)]
            mine, theirs, files_only = (min(values) for values in zip(*turns, strict=True))
            share = size / 1e9 / ceiling / mine
            print(f"| {name} | {size / 1e9:.2f} | {mine:.3f} | {share:.2f} | {theirs / mine:.2f} | {files_only / mine:.2f} |", flush=True)

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


def _control() -> Any:
    from gen_worker.models.loaders.base import LoadControl

    return LoadControl(lambda size_bytes: None, threading.Event())


def _dtype_option() -> str:
    from gen_worker.models.loaders.diffusers import _dtype_option as option

    return option()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--models", default="sdxl,flux")
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    name = torch.cuda.get_device_name(options.device) if options.device.startswith("cuda") else platform.machine()
    print(f"{name}; torch {torch.__version__}, diffusers {diffusers.__version__}, Python {platform.python_version()}")
    with tempfile.TemporaryDirectory(prefix="gen-worker-gpu-") as scratch:
        bench = Bench(options.device, options.folder or Path(scratch), tiny=options.tiny)
        ceiling = bench.ceilings()
        names = options.models.split(",")
        bench.loads(names, ceiling)
        bench.swaps(names[0], 10 if options.tiny else 200)
        bench.drawing()
        bench.out_of_memory()


if __name__ == "__main__":
    main()
