"""What a model takes before any of it is fetched: files, bytes, precision, room on disk and device, time."""

from collections.abc import Callable
from pathlib import Path

import msgspec

from gen_worker.content.disk import free_bytes, missing_bytes
from gen_worker.content.listing import Listing, RemoteFile
from gen_worker.refs import DTYPES, ModelSpec
from gen_worker.sources.file_plan import Component, FilePlan, SelectionPolicy
from gen_worker.sources.gather import plan_folder
from gen_worker.sources.weight_files import is_unsafe

WEIGHTS = (".safetensors", ".gguf", ".onnx", ".onnx_data", ".bin", ".ckpt", ".pt", ".pth")
GUESSED_BYTES_S = 100e6


class PlannedPart(msgspec.Struct, frozen=True):
    """A component: its bytes to fetch, and how many of them are weights, which is what it takes on the device."""

    name: str
    files: int
    size_bytes: int
    weight_bytes: int
    precision: str | None


class ModelPlan(msgspec.Struct, frozen=True):
    """One model. `source` is a word for programs, `origin` says for people where it comes from. `here_bytes` are already
    on this disk. `download_s` uses the rate measured here, or 100 MB/s."""

    key: str
    ref: str
    source: str
    origin: str
    kind: str
    parts: tuple[PlannedPart, ...]
    size_bytes: int
    here_bytes: int
    weight_bytes: int
    disk_free_bytes: int
    device_bytes: int
    download_s: float
    left_out: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    note: str = ""

    @property
    def fits(self) -> bool:
        return not self.problems


class Room(msgspec.Struct, frozen=True):
    """What is available: the disk for models, the bytes to keep free there, bytes of the device, the measured network rate."""

    folder: Path
    floor_bytes: int
    device_bytes: int
    rate_bytes_s: float = 0.0


def describe(
    key: str,
    spec: ModelSpec,
    source: str,
    origin: str,
    plan: FilePlan,
    listing: Listing,
    room: Room,
    blob_of: Callable[[RemoteFile], Path] | None = None,
) -> ModelPlan:
    """The plan of a model, with everything that is wrong with it. `blob_of` tells where a file will be once it is
    fetched; None: all files are here.
    """
    sizes = {file.path: file.size_bytes for file in listing.files}
    parts = tuple(_part(component, sizes) for component in plan.components if component.files)
    total = sum(sizes.values())
    missing, growth = missing_bytes({blob_of(file): file.size_bytes for file in listing.files} if blob_of is not None else {})
    weight = sum(part.weight_bytes for part in parts)
    free = free_bytes(room.folder)
    problems = []
    if growth and growth + room.floor_bytes > free:
        problems.append(
            f"the disk has {free / 1e9:.2f} GB free: {growth / 1e9:.2f} GB to write and {room.floor_bytes / 1e9:.2f} GB to keep "
            "free do not fit. Make room (cozyctl models gc), or choose another disk with TENSORHUB_CACHE_DIR or HF_HOME"
        )
    if weight > room.device_bytes:
        problems.append(
            f"its weights take {weight / 1e9:.2f} GB, and the device has {room.device_bytes / 1e9:.2f} GB for models. "
            "Use a smaller model or precision, or raise WORKER_MAX_VRAM_GB if there is more"
        )
    return ModelPlan(
        key,
        spec.ref,
        source,
        origin,
        plan.kind,
        parts,
        total,
        total - missing,
        weight,
        free,
        room.device_bytes,
        round(missing / (room.rate_bytes_s or GUESSED_BYTES_S), 1),
        plan.left_out,
        tuple(problems),
    )


def plan_of_folder(path: Path, spec: ModelSpec) -> tuple[FilePlan, Listing]:
    """The plan of files on this disk."""
    if path.is_file():
        return FilePlan("file", (Component("", (path.name,)),)), _listing({path.name: path})
    files = {str(file.relative_to(path)): file for file in sorted(path.rglob("*")) if file.is_file()}
    sizes = {name: file.stat().st_size for name, file in files.items()}
    others = tuple(name for name in DTYPES if name not in spec.dtypes)
    every = SelectionPolicy(precisions=(*spec.dtypes, *others))
    plan = plan_folder(files, sizes, every, path.name)
    return plan, _listing({name: files[name] for name in plan.files})


def plan_of_listing(listing: Listing) -> FilePlan:
    """The plan of files chosen by a hub, with its folders as components."""
    folders: dict[str, list[str]] = {}
    for file in listing.files:
        folders.setdefault(file.path.rpartition("/")[0].partition("/")[0], []).append(file.path)
    unsafe = tuple(file.path for file in listing.files if is_unsafe(file.path))
    return FilePlan("listed", tuple(Component(name, tuple(paths)) for name, paths in sorted(folders.items())), unsafe)


def _part(component: Component, sizes: dict[str, int]) -> PlannedPart:
    weights = sum(sizes[path] for path in component.files if path.endswith(WEIGHTS))
    total = sum(sizes[path] for path in component.files)
    return PlannedPart(component.name or "(root)", len(component.files), total, weights, component.precision)


def _listing(files: dict[str, Path]) -> Listing:
    return Listing("", tuple(RemoteFile(name, path.stat().st_size) for name, path in files.items()))
