"""The fast path for safetensors weights: one slab a component, filled by parallel reads. The tensors are views of the
slab, and the module is never initialised.

Whatever it does not understand (keys that differ from the module's, quantised weights, precisions kept by name) is left
to the library's own loading.
"""

import gc
import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, Self, TypeVar

import msgspec

from gen_worker.errors import FatalError
from gen_worker.net.digests import digest_file
from gen_worker.residency.cut import Cut, Piece
from gen_worker.residency.device import Device
from gen_worker.residency.host_tier import DISK_BYTES_S, HostBuffer, HostTier, file_key
from gen_worker.residency.layout import ALIGN, Image, aligned, image_of
from gen_worker.residency.loaders.base import LoadControl, import_torch
from gen_worker.residency.loaders.building import COLLECTOR, Pace
from gen_worker.residency.loaders.pieces import header_of, index_of
from gen_worker.residency.loaders.skeleton import NotUnderstoodError, Skeleton
from gen_worker.residency.loaders.skeletons import Skeletons
from gen_worker.residency.reader import Reading, Source
from gen_worker.sources.weight_files import (
    MODEL_STEMS,
    TensorEntry,
    by_name,
    is_index,
    is_unsafe,
    precision_of,
    weight_sets,
)

T = TypeVar("T")
HASH_BELOW_BYTES = 1 << 30
_FLOATS = frozenset({"F16", "BF16", "F32", "F64"})
_FORM = "2"  # version of the fast path's output; part of each part's identity


class WeightFile(msgspec.Struct, frozen=True):
    """A safetensors file, its header, and the layout of its tensors in memory."""

    path: Path
    entries: tuple[TensorEntry, ...]
    image: Image


def find_weights(folder: Path, dtypes: Sequence[str], stems: Sequence[str] = MODEL_STEMS) -> tuple[WeightFile, ...]:
    """The weights of a folder. Of several sets, the one whose precision comes first in `dtypes`. Empty when there are
    none.

    Libraries read sets whose names begin with one of `stems`; others are used only when no such set exists.
    `FatalError` when the folder has only pickles, or a file's header contradicts the file.
    """
    paths = sorted(path.name for path in folder.iterdir() if path.is_file())
    sizes = {name: (folder / name).stat().st_size for name in paths}
    indexes = {name: index_of(folder / name) for name in paths if is_index(name)}
    sets, problems = weight_sets(paths, sizes, indexes, "")
    if not sets:
        if problems:
            raise FatalError(f"{folder.name}: {problems[0]}")
        if unsafe := [name for name in paths if is_unsafe(name)]:
            raise FatalError(
                f"{folder.name}/{unsafe[0]} is a pickle or another format that can run code when it is loaded; expected .safetensors. "
                "Convert it on a machine where you trust it: save_pretrained(folder, safe_serialization=True)"
            )
        return ()
    ranked = []
    for number, found in enumerate(by_name(sets, stems)):
        files = tuple(_read(folder / name) for name in found.files)
        precision = precision_of([entry for file in files for entry in file.entries])
        rank = dtypes.index(precision) if precision in dtypes else len(dtypes)
        ranked.append((rank, found.size_bytes, number, files))
    return min(ranked, key=lambda item: item[:3])[3]


def weights_in(path: Path) -> tuple[WeightFile, ...]:
    """The weights in this one file; its neighbours are ignored."""
    return (_read(path),)


def variant_of(files: Sequence[WeightFile]) -> str | None:
    """The libraries' variant name of these files: `fp16` for `model.fp16.safetensors` and for `model.fp16-00001-of-00002...`."""
    name = re.sub(r"-\d{5}-of-\d{5}", "", files[0].path.name) if files else ""
    return name.partition(".")[2].removesuffix("safetensors").removesuffix(".") or None


def identity(folder: Path, files: Sequence[WeightFile], digests: Mapping[str, str], prefix: str, form: str) -> str:
    """An id for these weights in this form, made from their content, so that models with equal weights share them."""
    hasher = hashlib.sha256(f"{_FORM}|{form}".encode())
    for file in sorted(files, key=lambda f: f.path.name):
        known = digests.get(f"{prefix}{file.path.name}") or _digest_of(file.path)
        hasher.update(known.encode() + b"|")
    for config in sorted(folder.glob("*config.json")):
        hasher.update(config.read_bytes())
    return f"sha256:{hasher.hexdigest()}"


class WeightsOnTheWay:
    """Weights being read into a slab on the device, from construction until the `with` block ends."""

    def __init__(self, files: Sequence[WeightFile], device: Device, control: LoadControl) -> None:
        self._dtypes = torch_dtypes(import_torch())
        if strange := [entry.dtype for file in files for entry in file.entries if entry.dtype not in self._dtypes]:
            raise NotUnderstoodError(f"dtype {strange[0]}")
        self._files = files
        self._device = device
        self._control = control

    def __enter__(self) -> Self:
        places, at = [], 0
        for file in self._files:
            places.append(at)
            at += file.image.size_bytes
        self._slab = self._device.new_slab(max(at, ALIGN))
        self._places = places
        control = self._control
        with ExitStack() as stack:
            buffers = stack.enter_context(host_buffers(self._device.host, self._files))
            sources = [
                Source(file.path, file.image, place, *buffers.get(file.path, (None, False)))
                for file, place in zip(self._files, places, strict=True)
            ]
            self._reading = Reading(self._slab, sources, self._device.readers, control.on_bytes, control.cancel, control.working)
            self._buffers = stack.pop_all()
        return self

    def __exit__(self, kind: Any, exc: Any, trace: Any) -> None:
        self._reading.abandon()
        self._buffers.__exit__(kind, exc, trace)

    def arrive(self) -> None:
        """Wait until all bytes are there."""
        self._reading.finish()

    def cut(self) -> Cut:
        """How the slab is cut into tensors; it is the same for each load of these files."""
        return Cut(
            [
                Piece(entry.name, place + offset, entry.end - entry.start, self._dtypes[entry.dtype], entry.shape)
                for file, place in zip(self._files, self._places, strict=True)
                for entry, offset in zip(file.entries, file.image.offsets, strict=True)
            ]
        )

    def tensors(self, cut: Cut | None = None) -> Iterator[tuple[str, Any]]:
        """Each tensor by its name, as a view of the slab. `cut` is of an earlier load."""
        cut = cut or self.cut()
        return zip((piece.name for piece in cut.pieces), self._slab.tensors(cut), strict=True)


def load_tensors(files: Sequence[WeightFile], device: Device, control: LoadControl) -> dict[str, Any]:
    """Every tensor of these files on the device, as views of one slab."""
    with WeightsOnTheWay(files, device, control) as weights:
        weights.arrive()
        return dict(weights.tensors())


@contextmanager
def host_buffers(host: HostTier | None, files: Sequence[WeightFile]) -> Iterator[dict[Path, tuple[HostBuffer, bool]]]:
    """Buffers of the host tier for these files, and whether each is filled. Buffers to fill are kept if the block succeeds."""
    found: dict[Path, tuple[HostBuffer, bool]] = {}
    keys: dict[Path, str] = {}
    try:
        for file in files if host is not None else ():
            assert host is not None
            key = file_key(file.path)
            size = file.image.size_bytes
            buffer = host.find(key)
            filled = buffer is not None
            buffer = buffer or host.admit(key, size, size / DISK_BYTES_S)
            if buffer is not None:
                found[file.path], keys[file.path] = (buffer, filled), key
        yield found
        for path, (_, filled) in found.items():
            if not filled and host is not None:
                host.commit(keys[path])
    except BaseException:
        for path, (_, filled) in found.items():
            if not filled and host is not None:
                host.abort(keys[path])
        raise
    finally:
        for key in keys.values():
            if host is not None:
                host.release(key)


class Recipe(msgspec.Struct, frozen=True):
    """How a module is made from files. `make` builds it without its weights; `dtype` is the precision of its floats.

    `cast_buffers`: buffers that are not in the files get that precision, too. `wide` tells by name which tensors stay
    in float32.
    """

    make: Callable[[], Any]
    files: tuple[WeightFile, ...]
    dtype: Any
    cast_buffers: bool
    wide: Callable[[str], bool] = lambda name: False

    def dtype_of(self, name: str, in_file: Any) -> Any:
        """The precision in the module for a tensor of the files."""
        if not in_file.is_floating_point:
            return in_file
        return import_torch().float32 if self.wide(name) else self.dtype


def load_module(recipe: Recipe, device: Device, control: LoadControl, part_id: str, skeletons: Skeletons | None = None) -> tuple[Any, int]:
    """A module with the weights of its files, and its size in bytes. The module is built while the weights are being read.

    The garbage collector is off until the module has its tensors. After that, the load only waits for bytes.
    """
    with ExitStack() as stack:
        collector = stack.enter_context(ExitStack())
        collector.enter_context(COLLECTOR.stopped())
        skeleton, weights = stack.enter_context(
            skeleton_of(recipe, control, part_id, skeletons, lambda: WeightsOnTheWay(recipe.files, device, control))
        )
        skeleton.check(recipe.files, lambda: {entry.name: entry.shape for file in recipe.files for entry in file.entries})
        # The place of a tensor is known before its bytes arrive.
        to_cast: list[tuple[str, Any, Any]] = []
        skeleton.cut = skeleton.cut or weights.cut()
        for name, tensor in weights.tensors(skeleton.cut):
            dtype = recipe.dtype_of(name, tensor.dtype)
            if tensor.dtype == dtype:
                skeleton.put(name, tensor)
            else:
                to_cast.append((name, tensor, dtype))
        if early := not to_cast and not skeleton.reads_values:
            skeleton.complete(device.name, recipe.dtype)
        collector.close()
        weights.arrive()
        for name, tensor, dtype in to_cast:
            skeleton.put(name, tensor.to(dtype))
        if not early:
            skeleton.complete(device.name, recipe.dtype)
    return skeleton.module, skeleton.device_bytes


def build_ahead(recipe: Callable[[], Recipe], working: Callable[[], int], part_id: str, skeletons: Skeletons | None) -> bool:
    """Build ahead what `load_module` would build; whether that was done.

    Errors are left to the load, which reports them.
    """

    def make() -> Skeleton:
        made = recipe()
        known = torch_dtypes(import_torch())
        skeleton = Skeleton(made.make, Pace(working), cast_buffers=made.cast_buffers)
        entries = [entry for file in made.files for entry in file.entries]
        skeleton.check(made.files, lambda: {entry.name: entry.shape for entry in entries})
        skeleton.settle({entry.name: made.dtype_of(entry.name, known[entry.dtype]) for entry in entries})
        gc.collect(1)  # of what has just been made: otherwise the load pays for that, in the midst of its bytes
        return skeleton

    with suppress(NotUnderstoodError):
        return skeletons is not None and skeletons.build_ahead(part_id, make)
    return False


@contextmanager
def skeleton_of(
    recipe: Recipe,
    control: LoadControl,
    part_id: str,
    skeletons: Skeletons | None,
    begin: Callable[[], AbstractContextManager[T]],
    narrow: Callable[[Any], None] = lambda module: None,
) -> Iterator[tuple[Skeleton, T]]:
    """The skeleton of a part, kept from its last load or built now, while the work started by `begin` proceeds.

    If the block fails the skeleton is given back, otherwise it is recorded as loaded.
    """

    def make() -> Any:
        module = recipe.make()
        narrow(module)
        return module

    with begin() as begun:
        skeleton = skeletons.take(part_id) if skeletons is not None else None
        try:
            skeleton = skeleton or Skeleton(make, Pace(control.working), cast_buffers=recipe.cast_buffers)
            yield skeleton, begun
        except BaseException:
            if skeletons is not None:
                skeletons.give_back(part_id, skeleton)
            raise
        if skeletons is not None:
            skeletons.loaded(part_id, skeleton)


def loaded_bytes(files: Sequence[WeightFile], itemsize: int) -> int:
    """Bytes of these weights on the device when their floats have `itemsize` bytes each."""
    total = 0
    for entry in (entry for file in files for entry in file.entries):
        count = 1
        for length in entry.shape:
            count *= length
        total += aligned(count * itemsize if entry.dtype in _FLOATS else entry.end - entry.start)
    return total


def torch_dtypes(torch: Any) -> dict[str, Any]:
    """Torch dtypes by their safetensors names."""
    found = {
        "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64, "I32": torch.int32,
        "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
    }  # fmt: skip
    return found | {"F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2}


def _read(path: Path) -> WeightFile:
    entries, size_bytes = header_of(path)
    return WeightFile(path, entries, image_of(entries, size_bytes))


def _digest_of(path: Path) -> str:
    """A digest of the content up to 1 GB, beyond that of the file's identity, so that large local files are not read twice."""
    stat = path.stat()
    return _content_of(path, stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns)


@lru_cache(4096)
def _content_of(path: Path, device: int, inode: int, size: int, mtime_ns: int) -> str:
    return digest_file(path, "blake3:") if size <= HASH_BELOW_BYTES else f"file:{device}:{inode}:{size}:{mtime_ns}"
