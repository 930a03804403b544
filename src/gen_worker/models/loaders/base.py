"""What a loader is, and which one an annotation asks for."""

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, get_origin

import msgspec

from gen_worker.errors import FatalError, MissingExtraError


class Loaded(msgspec.Struct, frozen=True):
    """A loaded model. `view` makes what one run is handed: the object itself, or a light copy with its own state."""

    model: Any
    size_bytes: int
    view: Callable[[], Any]


class LoadRequest(msgspec.Struct, frozen=True):
    """`device` is a torch device name; `dtypes` the allowed weight precisions, best first."""

    annotation: Any
    path: Path
    device: str
    dtypes: Sequence[str]


class Loader(Protocol):
    """Loads one family of types. `load` blocks and runs in a thread."""

    def accepts(self, annotation: Any) -> bool: ...

    def load(self, request: LoadRequest) -> Loaded: ...


def choose_loader(loaders: Sequence[Loader], annotation: Any) -> Loader:
    """The first loader that accepts the annotation; `FatalError` lists what can be injected."""
    for loader in loaders:
        if loader.accepts(annotation):
            return loader
    raise FatalError(
        f"no injection provider for type {annotation!r}; expected a diffusers pipeline, a transformers class, pathlib.Path, "
        "or a class with a from_pretrained(path) class method"
    )


def family(annotation: Any) -> str:
    """The top-level package of a class, `""` for what is no class."""
    kind = get_origin(annotation) or annotation
    return kind.__module__.partition(".")[0] if isinstance(kind, type) else ""


def torch_dtype(torch: Any, device: str, dtypes: Sequence[str]) -> Any:
    """The precision to load in: the first allowed one that the device computes well; full precision on a CPU."""
    if device.startswith("cpu"):
        return torch.float32
    by_name = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
    return next((by_name[name] for name in dtypes if name in by_name), torch.float16)


def tensor_bytes(module: Any) -> int:
    """Bytes of a torch module's parameters and buffers."""
    return int(sum(t.nbytes for t in module.parameters()) + sum(t.nbytes for t in module.buffers()))


def import_torch() -> Any:
    """torch, or `MissingExtraError` with the command that installs it."""
    try:
        import torch
    except ImportError as exc:
        raise MissingExtraError("torch", "torch", "loading this model") from exc
    return torch


def quiet(*logging_modules: str) -> None:
    """Switch a library's progress bars off: progress is an event here, not a bar on the worker's stderr."""
    for name in logging_modules:
        importlib.import_module(name).disable_progress_bar()
