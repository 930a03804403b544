"""What a loader is, and which loader an annotation selects."""

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
    """A loaded model. `view` makes the object that one run is given: the model itself, or a light copy with its own
    state.

    `on_drop` is called after it has left the device, for objects that hold memory elsewhere. `view_blocks`: `view` may
    take time, so it is called in a loading thread.
    """

    model: Any
    size_bytes: int
    view: Callable[[], Any]
    on_drop: Callable[[], None] | None = None
    view_blocks: bool = False


class LoadRequest(msgspec.Struct, frozen=True):
    """What to load. `device` is looked up when it is first needed; `dtypes` are the allowed weight precisions, best
    first.

    `digests` of the files by relative path, where known; `loaders` are the author's own, found in the function's
    module.
    """

    annotation: Any
    path: Path
    device: Callable[[], Device]
    dtypes: Sequence[str]
    digests: Mapping[str, str] = {}
    model_id: str = ""
    own_loaders: Mapping[Any, Callable[..., Any]] = {}
    saving_level: int = 0  # how many of the plan's `savings` to apply
    skeletons: "Skeletons | None" = None  # where the skeletons of evicted models are kept


class LoadControl(msgspec.Struct, frozen=True):
    """What a part reports while it loads, and whether anyone still waits for it."""

    on_bytes: Callable[[int], None]
    cancel: threading.Event
    on_fallback: Callable[[str], None] = lambda reason: None  # called with the reason when the library's own loading was used
    working: Callable[[], int] = lambda: 0  # how many functions run now: a load yields to them


class PartPlan(msgspec.Struct, frozen=True):
    """A part to have on the device. Equal `part_id`s mean the same weights in the same form. `load` blocks and returns
    the object and its real size. `files`: the weights that the host tier may hold. `build_ahead` builds what needs no
    weights and returns whether it did; it is told how many functions run, and yields to them.
    """

    part_id: str
    size_bytes: int
    load: Callable[[LoadControl], tuple[Any, int]]
    files: tuple[Path, ...] = ()
    build_ahead: Callable[[Callable[[], int]], bool] | None = None


class LoadPlan(msgspec.Struct, frozen=True):
    """Parts, and how they become a model: `assemble` gets the loaded objects by part id. It blocks.

    `savings`: what the loader can do to make the model need less memory, in the order to try it.
    """

    parts: tuple[PartPlan, ...]
    assemble: Callable[[Mapping[str, Any]], Loaded]
    savings: tuple[str, ...] = ()
    stamp: Callable[[], Any] | None = None  # while the stamp stays equal, the plan is valid; None: make a new plan for each load


class Loader(Protocol):
    """Loads one family of types. `plan` blocks: it may read headers, but never weights."""

    def accepts(self, request: LoadRequest) -> bool: ...

    def plan(self, request: LoadRequest) -> LoadPlan: ...


def whole(request: LoadRequest, size_bytes: int, load: Callable[[], Loaded]) -> LoadPlan:
    """A model that is a single part, loaded by the given function."""
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
    """The package whose loading a class uses; `""` when it is not a class.

    That is the package that defines `from_pretrained`. So an author's subclass of a library's model is loaded, shared
    and checked like the library's own models.
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
    """Device bytes of a torch module's parameters and buffers, each aligned."""
    return sum(aligned(tensor.nbytes) for tensor in (*module.parameters(), *module.buffers()))


def folder_bytes(path: Path, suffixes: tuple[str, ...] = ()) -> int:
    """Bytes of the files in a folder (or of one file), limited to these suffixes if any are given."""
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file() and (not suffixes or file.name.endswith(suffixes)))


def stamp_of(path: Path) -> Callable[[], Any]:
    """A value that changes when any file of a folder (or a single file) is replaced."""

    def look() -> list[tuple[str, int, int, int]]:
        found = []
        for file in path.rglob("*") if path.is_dir() else (path,):
            try:
                stat = file.stat()
            except OSError:  # a dangling link
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
    """Turn off a library's progress bars: progress is reported as events, not as bars on the worker's stderr."""
    for name in logging_modules:
        importlib.import_module(name).disable_progress_bar()
