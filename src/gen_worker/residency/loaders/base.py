"""What a loader is, and which one an annotation asks for."""

import importlib
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, get_origin

import msgspec

from gen_worker.errors import FatalError, MissingExtraError
from gen_worker.residency.device import Device
from gen_worker.residency.layout import aligned

if TYPE_CHECKING:
    from gen_worker.residency.loaders.skeletons import Skeletons


class Loaded(msgspec.Struct, frozen=True):
    """A loaded model. `view` makes what one run is handed: the object itself, or a light copy with its own state.

    `on_drop` is called when it has left the device, for those that hold memory elsewhere. `view_blocks`: `view` may take its time, and is
    called in a thread for loads.
    """

    model: Any
    size_bytes: int
    view: Callable[[], Any]
    on_drop: Callable[[], None] | None = None
    view_blocks: bool = False


class LoadRequest(msgspec.Struct, frozen=True):
    """`device` computes the device when it is first needed; `dtypes` are the allowed weight precisions, best first.

    `digests` of the files by relative path, where they are known; `loaders` are the author's own, found where the function is defined.
    """

    annotation: Any
    path: Path
    device: Callable[[], Device]
    dtypes: Sequence[str]
    digests: Mapping[str, str] = {}
    model_id: str = ""
    own_loaders: Mapping[Any, Callable[..., Any]] = {}
    saving_level: int = 0  # how many of the plan's `savings` to take
    skeletons: "Skeletons | None" = None  # where to look for what was kept of a model when it was evicted, and to keep it


class LoadControl(msgspec.Struct, frozen=True):
    """What a part tells while it loads, and whether anybody still waits for it."""

    on_bytes: Callable[[int], None]
    cancel: threading.Event
    on_fallback: Callable[[str], None] = lambda reason: None  # the library's own loading was used, and why
    working: Callable[[], int] = lambda: 0  # how many functions work now: a load gives way to them


class PartPlan(msgspec.Struct, frozen=True):
    """A part to have on the device. Equal `part_id`s are the same weights in the same form; `load` blocks and gives the object and its
    real size. `files`: the weights that the host tier may hold. `build_ahead` makes what needs no weights, and says
    whether it did; it is told how many functions work, and gives way to them."""

    part_id: str
    size_bytes: int
    load: Callable[[LoadControl], tuple[Any, int]]
    files: tuple[Path, ...] = ()
    build_ahead: Callable[[Callable[[], int]], bool] | None = None


class LoadPlan(msgspec.Struct, frozen=True):
    """Parts, and how they become a model: `assemble` gets the loaded objects by part id. It blocks.

    `savings`: what the loader could do for the model to need less memory, in the order in which to try it.
    """

    parts: tuple[PartPlan, ...]
    assemble: Callable[[Mapping[str, Any]], Loaded]
    savings: tuple[str, ...] = ()
    stamp: Callable[[], Any] | None = None  # equal stamps: the plan still holds. None: it is made anew for each load


class Loader(Protocol):
    """Loads one family of types. `plan` blocks: it may read headers, never weights."""

    def accepts(self, request: LoadRequest) -> bool: ...

    def plan(self, request: LoadRequest) -> LoadPlan: ...


def whole(request: LoadRequest, size_bytes: int, load: Callable[[], Loaded]) -> LoadPlan:
    """A model that is one part, loaded by other means than ours."""
    part_id = f"{request.path}|{getattr(request.annotation, '__qualname__', request.annotation)}|{','.join(request.dtypes)}"

    def load_part(control: LoadControl) -> tuple[Any, int]:
        loaded = load()
        control.on_bytes(size_bytes)
        return loaded, loaded.size_bytes

    return LoadPlan((PartPlan(part_id, size_bytes, load_part),), lambda parts: next(iter(parts.values())))


def choose_loader(loaders: Sequence[Loader], request: LoadRequest) -> Loader:
    """The first loader that accepts the annotation; `FatalError` lists what can be injected."""
    for loader in loaders:
        if loader.accepts(request):
            return loader
    raise FatalError(
        f"no injection provider for type {request.annotation!r}; expected a diffusers pipeline, a transformers class, a "
        "SentenceTransformer, onnxruntime.InferenceSession, pathlib.Path, a class with a from_pretrained(path) class method, "
        "or one for which a function is marked @model_loader(TYPE) in the endpoint's module"
    )


def family(annotation: Any) -> str:
    """The package whose way of loading a class has, `""` for what is no class.

    It is the package that defines `from_pretrained`: an author's subclass of a library's model is loaded, shared and checked as the
    library's own are.
    """
    kind = get_origin(annotation) or annotation
    if not isinstance(kind, type):
        return ""
    defines = next((base for base in kind.__mro__ if "from_pretrained" in vars(base)), kind)
    package, own = defines.__module__.partition(".")[0], kind.__module__.partition(".")[0]
    return package if package in ("diffusers", "transformers") else own


def torch_dtype(torch: Any, device: str, dtypes: Sequence[str]) -> Any:
    """The precision to load in: the first allowed one that the device computes well; full precision on a CPU."""
    if device.startswith("cpu"):
        return torch.float32
    by_name = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
    return next((by_name[name] for name in dtypes if name in by_name), torch.float16)


def tensor_bytes(module: Any) -> int:
    """Bytes that a torch module's parameters and buffers take of the device, each from an address that suits it."""
    return sum(aligned(tensor.nbytes) for tensor in (*module.parameters(), *module.buffers()))


def folder_bytes(path: Path, suffixes: tuple[str, ...] = ()) -> int:
    """Bytes of the files in a folder (or of a file), those with these suffixes if any are given."""
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file() and (not suffixes or file.name.endswith(suffixes)))


def stamp_of(path: Path) -> Callable[[], Any]:
    """What tells of a folder (or file) whether any of its files was exchanged."""

    def look() -> list[tuple[str, int, int, int]]:
        found = []
        for file in path.rglob("*") if path.is_dir() else (path,):
            try:
                stat = file.stat()
            except OSError:  # a link to nowhere
                continue
            found.append((str(file), stat.st_ino, stat.st_size, stat.st_mtime_ns))
        return sorted(found)

    return look


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
