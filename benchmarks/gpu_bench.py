"""One device for the benchmarks of models: a budget of time, models with random weights, loads of them by the fast path, timings."""

import gc
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import diffusers
import torch

from gen_worker.residency.device import TorchDevice
from gen_worker.residency.loaders.base import LoadControl, Loaded, LoadPlan, PartPlan
from gen_worker.residency.loaders.skeletons import Skeletons
from gen_worker.residency.loaders.weights import Recipe, find_weights, load_module

SDXL = {
    "sample_size": 128, "block_out_channels": (320, 640, 1280), "layers_per_block": 2, "transformer_layers_per_block": (1, 2, 10),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"), "attention_head_dim": (5, 10, 20), "cross_attention_dim": 2048,
    "addition_embed_type": "text_time", "addition_time_embed_dim": 256, "projection_class_embeddings_input_dim": 2816,
    "use_linear_projection": True,
}  # fmt: skip
SD15 = {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8}
OPTIONS = {"sd15": SD15, "sdxl": SDXL, "flux": {}}
# As many layers and tensors as the real ones, but thin: what a load costs beside its bytes is the same.
THIN = {
    "sd15": {**SD15, "block_out_channels": (32, 32, 64, 64), "sample_size": 16},
    "sdxl": {**SDXL, "block_out_channels": (32, 64, 128), "attention_head_dim": (1, 2, 4), "sample_size": 16},
    "flux": {"num_layers": 19, "num_single_layers": 38, "num_attention_heads": 2, "attention_head_dim": 16, "axes_dims_rope": (4, 4, 8),
             "joint_attention_dim": 64},
}  # fmt: skip


class Bench:
    """One device, one folder, and what was found."""

    def __init__(self, device: str, folder: Path, *, tiny: bool, budget_s: float) -> None:
        self.cuda = device.startswith("cuda")
        self.device = f"cuda:{torch.cuda.current_device()}" if device == "cuda" else device
        self.folder = folder
        self.tiny = tiny
        self.place = TorchDevice(self.device)
        self.found: dict[str, Any] = {}
        self._files: dict[Path, tuple[Any, ...]] = {}
        self._ends_s = time.monotonic() + budget_s

    def has_time(self, seconds: float, what: str) -> bool:
        """Whether so much of the budget is left; says so if not."""
        left_s = self._ends_s - time.monotonic()
        if left_s < seconds:
            print(f"\n(left out for want of time: {what})", flush=True)
            self.found.setdefault("left_out", []).append(what)
        return left_s >= seconds

    def note(self, name: str, value: Any, text: str) -> None:
        self.found[name] = value
        print(text, flush=True)

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

    def best(self, work: Callable[[], Any], count: int = 3, first: Callable[[], Any] = lambda: None) -> float:
        return min(self.timed(work, first) for _ in range(count))

    def dtype(self, name: str) -> Any:
        return torch.float32 if not self.cuda else torch.bfloat16 if name == "flux" else torch.float16

    def make(self, name: str) -> tuple[Any, Path]:
        """A model class, and a folder with random weights of it."""
        kind = diffusers.FluxTransformer2DModel if name == "flux" else diffusers.UNet2DConditionModel
        folder = self.folder / name
        if not folder.exists():
            before = torch.get_default_dtype()
            torch.set_default_dtype(self.dtype(name))
            with torch.device(self.device):
                model = kind(**(THIN if self.tiny else OPTIONS)[name])
            torch.set_default_dtype(before)
            model.to("cpu").save_pretrained(folder, max_shard_size="10GB")
            del model
            gc.collect()
            self.place.collect()
        return kind, folder

    def load(self, kind: Any, folder: Path, skeletons: Skeletons | None = None, place: TorchDevice | None = None, part: str = "") -> Any:
        """By the fast path; with `skeletons` the second time is a reload."""
        return load_module(self.recipe(kind, folder), place or self.place, control(), part or folder.name, skeletons)[0]

    def recipe(self, kind: Any, folder: Path) -> Recipe:
        """How the loader of diffusers makes it."""
        config = kind.load_config(str(folder))
        return Recipe(partial(kind.from_config, config), self.files(folder), self.dtype(folder.name), cast_buffers=True)

    def files(self, folder: Path) -> tuple[Any, ...]:
        if folder not in self._files:
            self._files[folder] = find_weights(folder, ("fp16", "bf16", "fp32"))  # a plan is kept, and its headers with it
        return self._files[folder]

    def timed_plainly(self, work: Callable[[], Any]) -> float:
        self.sync()
        began = time.perf_counter()
        work()
        self.sync()
        return time.perf_counter() - began

    def plan(self, kind: Any, folder: Path, part: str, size: int, skeletons: Skeletons | None, place: TorchDevice) -> LoadPlan:
        loaded = PartPlan(part, size, lambda control: (self.load(kind, folder, skeletons, place, part), size))
        return LoadPlan((loaded,), lambda parts: Loaded(next(iter(parts.values())), size, lambda: None))

    def step(self, unet: Any, edge: int, seed: int = 0) -> Any:
        """One denoising step of a UNet for pictures of this size."""
        dtype = next(unet.parameters()).dtype
        generator = torch.Generator().manual_seed(seed)
        latents = torch.randn(1, 4, edge // 8, edge // 8, generator=generator).to(self.device, dtype)
        text = torch.randn(1, 77, unet.config.cross_attention_dim, generator=generator).to(self.device, dtype)
        extra = None
        if unet.config.addition_embed_type:
            extra = {
                "text_embeds": torch.zeros(1, 1280, device=self.device, dtype=dtype),
                "time_ids": torch.zeros(1, 6, device=self.device, dtype=dtype),
            }
        with torch.inference_mode():
            return unet(latents, torch.tensor(10, device=self.device), text, added_cond_kwargs=extra).sample


def control() -> LoadControl:
    return LoadControl(lambda size_bytes: None, threading.Event())
