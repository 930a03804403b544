"""Weights kept in eight bits: float8_e4m3fn with one scale for each output channel. They are widened where they are
used, so any device computes in the pipeline's own precision, and several runs can share them.

The scales are powers of two: they are exact in every precision and move no value off its grid.
"""

from collections.abc import Container, Sequence
from contextlib import nullcontext
from functools import lru_cache
from typing import Any

from gen_worker.residency.device import Device
from gen_worker.residency.loaders.base import LoadControl, import_torch
from gen_worker.residency.loaders.skeletons import Skeletons
from gen_worker.residency.loaders.weights import Recipe, WeightFile, WeightsOnTheWay, loaded_bytes, skeleton_of
from gen_worker.sources.weight_files import TensorEntry, precision_of

DENOISERS = ("unet", "transformer", "transformer_2", "prior")
LARGEST = 448.0  # the largest value of float8_e4m3fn


def wants_fp8(name: str, dtypes: Sequence[str]) -> bool:
    """Whether to keep a pipeline's component in eight bits: true for the components with most of the weights when fp8
    is the first dtype.
    """
    return name in DENOISERS and bool(dtypes) and dtypes[0] == "fp8"


def fp8_bytes(files: Sequence[WeightFile], itemsize: int) -> int:
    """Bytes that a component needs while it loads: what it keeps, plus its largest file in full width."""
    narrow = sum(_count(entry) for file in files for entry in file.entries if _is_kept_narrow(entry.name, len(entry.shape)))
    return loaded_bytes(files, itemsize) - narrow * (itemsize - 1) + max(file.image.size_bytes for file in files)


def load_in_fp8(recipe: Recipe, device: Device, control: LoadControl, part_id: str, skeletons: Skeletons | None = None) -> tuple[Any, int]:
    """Like `load_module`, file by file, so that only one file at a time is on the device in full width."""
    torch = import_torch()

    def narrow(module: Any) -> None:
        for name, part in _parts_to_narrow(module).items():
            if not recipe.wide(name):
                shape = part.weight.shape
                weight = torch.empty(shape, dtype=torch.float8_e4m3fn, device="meta")
                _become_narrow(part, weight, torch.empty((shape[0], *[1] * (len(shape) - 1)), dtype=torch.bfloat16, device="meta"))

    with skeleton_of(recipe, control, part_id, skeletons, nullcontext, narrow) as (skeleton, _):
        entries = [entry for file in recipe.files for entry in file.entries]
        skeleton.check(recipe.files, lambda: {_narrow_name(entry.name, skeleton.names) or entry.name: entry.shape for entry in entries})
        for file in recipe.files:
            exact = precision_of(file.entries) == "fp8"
            with WeightsOnTheWay([file], device, control) as weights:
                weights.arrive()
                for name, tensor in weights.tensors():
                    place = _narrow_name(name, skeleton.names)
                    if place is not None:
                        values, scale = _narrow(tensor, exact=exact)
                        skeleton.put(place, values)
                        skeleton.put(f"{name}_scale", scale)
                    else:  # a copy, because a view would keep the whole file on the device
                        dtype = torch.float32 if recipe.wide(name) else recipe.dtype
                        skeleton.put(name, tensor.to(dtype, copy=True) if tensor.is_floating_point() else tensor.clone())
                tensor = values = scale = None
        module = skeleton.complete(device.name, recipe.dtype)
    return module, skeleton.device_bytes


def _narrow_name(name: str, names: Container[str]) -> str | None:
    """The name of a weight's narrow form, if its module has one."""
    return f"{name}_fp8" if f"{name}_fp8" in names else None


def keep_in_fp8(module: Any) -> None:
    """Narrow a module in place, after it was loaded by other means."""
    for part in _parts_to_narrow(module).values():
        _become_narrow(part, *_narrow(part.weight.data, exact=False))


def _parts_to_narrow(module: Any) -> dict[str, Any]:
    """Modules by the names of their weights."""
    found = {f"{name}.weight": part for name, part in module.named_modules() if type(part) in _kinds()}
    return {name: part for name, part in found.items() if _is_kept_narrow(name, part.weight.dim())}


def _is_kept_narrow(name: str, dimensions: int) -> bool:
    """Matrices and kernels inside the blocks. Input embeddings and output layers stay wide: they are small, and
    narrowing them hurts most.
    """
    return "block" in name and name.endswith(".weight") and dimensions >= 2


def _count(entry: TensorEntry) -> int:
    count = 1
    for length in entry.shape:
        count *= length
    return count


def _narrow(weight: Any, *, exact: bool) -> tuple[Any, Any]:
    """The weight in eight bits, and the scale of each output channel. `exact`: the file already has eight bits, and they are kept."""
    torch = import_torch()
    wide = weight.float()
    peak = wide.abs().amax(dim=tuple(range(1, wide.dim())), keepdim=True).clamp(min=2.0**-60)
    scale = torch.ones_like(peak) if exact else torch.exp2(torch.ceil(torch.log2(peak / LARGEST)))
    return (wide / scale).clamp(-LARGEST, LARGEST).to(torch.float8_e4m3fn), scale.to(torch.bfloat16)


def _become_narrow(part: Any, narrow: Any, scale: Any) -> None:
    del part._parameters["weight"]
    part.register_buffer("weight_fp8", narrow)
    part.register_buffer("weight_scale", scale)
    part.__class__ = _kinds()[type(part)]


@lru_cache
def _kinds() -> dict[type, type]:
    """Narrow classes by their ordinary class. `isinstance` still works, and `weight` reads as before."""
    torch = import_torch()

    def weight(self: Any) -> Any:
        return self.weight_fp8.to(self.weight_scale.dtype) * self.weight_scale

    def widened(self: Any, dtype: Any) -> Any:
        return self.weight_fp8.to(dtype) * self.weight_scale.to(dtype)

    def linear(self: Any, x: Any) -> Any:
        return torch.nn.functional.linear(x, widened(self, x.dtype), self.bias)

    def convolution(self: Any, x: Any) -> Any:
        return self._conv_forward(x, widened(self, x.dtype), self.bias)

    return {
        kind: type(f"Fp8{kind.__name__}", (kind,), {"weight": property(weight), "forward": forward})
        for kind, forward in ((torch.nn.Linear, linear), (torch.nn.Conv2d, convolution))
    }
