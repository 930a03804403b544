"""Models loaded by our loaders, for comparison with the libraries' own loading."""

import threading
from pathlib import Path
from typing import Any

from gen_worker.residency.device import TorchDevice
from gen_worker.residency.loaders.base import LoadControl, Loaded, Loader, LoadPlan, LoadRequest

DEVICE = TorchDevice("cpu")


def plan(loader: Loader, kind: Any, path: Path, dtypes: tuple[str, ...] = ("fp16", "bf16")) -> LoadPlan:
    return loader.plan(LoadRequest(kind, path, lambda: DEVICE, dtypes))


def load(found: LoadPlan, *, fast: bool = True) -> Loaded:
    """The model; `fast`: whether the fast path is expected to have loaded all of it."""
    reasons: list[str] = []
    control = LoadControl(lambda size_bytes: None, threading.Event(), reasons.append)
    loaded = found.assemble({part.part_id: part.load(control)[0] for part in found.parts})
    assert bool(reasons) != fast, reasons
    return loaded


def same_modules(ours: Any, theirs: Any) -> None:
    """Every parameter and buffer, in name, place, precision and value; and which of them are one."""
    import torch

    mine = dict(ours.named_parameters(remove_duplicate=False)) | dict(ours.named_buffers(remove_duplicate=False))
    others = dict(theirs.named_parameters(remove_duplicate=False)) | dict(theirs.named_buffers(remove_duplicate=False))
    assert mine.keys() == others.keys()
    for name, tensor in others.items():
        assert mine[name].dtype == tensor.dtype, name
        assert torch.equal(mine[name], tensor), name
    assert _tied(ours) == _tied(theirs)
    assert not ours.training


def _tied(module: Any) -> set[frozenset[str]]:
    groups: dict[int, set[str]] = {}
    for name, tensor in module.named_parameters(remove_duplicate=False):
        groups.setdefault(id(tensor), set()).add(name)
    return {frozenset(names) for names in groups.values() if len(names) > 1}


def draw(pipe: Any, prompt: str) -> Any:
    import torch

    generator = torch.Generator().manual_seed(3)
    return pipe(prompt, num_inference_steps=3, guidance_scale=3.0, height=32, width=32, output_type="np", generator=generator).images
