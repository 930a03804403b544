"""The fast path of safetensors weights: one slab a component, filled by parallel reads, its tensors views, the module never initialised.

What it does not understand (other keys than the module's, quantised weights, precisions kept by name) it leaves to the library's own
loading.
"""

import hashlib
import inspect
import re
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec

from gen_worker.authoring.building import BUILDING
from gen_worker.errors import FatalError
from gen_worker.net.digests import digest_file
from gen_worker.residency.device import Device
from gen_worker.residency.host_tier import DISK_BYTES_S, HostBuffer, HostTier, file_key
from gen_worker.residency.loaders.base import LoadControl, import_torch, tensor_bytes
from gen_worker.residency.loaders.library import may_be_missing
from gen_worker.residency.reader import Extent, read_into
from gen_worker.sources.weight_files import (
    HeaderError,
    TensorEntry,
    header_size,
    is_index,
    is_unsafe,
    precision_of,
    read_header,
    weight_sets,
)

ALIGN = 256
HASH_BELOW_BYTES = 1 << 30
_FLOATS = frozenset({"F16", "BF16", "F32", "F64"})
_FORM = "1"  # of what the fast path makes; part of each part's identity


class WeightFile(msgspec.Struct, frozen=True):
    """A safetensors file and its header."""

    path: Path
    entries: tuple[TensorEntry, ...]
    data_start: int
    data_end: int


class NotUnderstoodError(Exception):
    """The fast path cannot load this; the library may."""


def find_weights(folder: Path, dtypes: Sequence[str]) -> tuple[WeightFile, ...]:
    """The weights of a folder: of several sets the one whose precision stands first in `dtypes`. Empty: there are none.

    `FatalError` for a folder that has only pickles, or a file that lies about itself.
    """
    paths = sorted(path.name for path in folder.iterdir() if path.is_file())
    sizes = {name: (folder / name).stat().st_size for name in paths}
    indexes = {name: _json(folder / name) for name in paths if is_index(name)}
    sets, problems = weight_sets(paths, sizes, indexes, "")
    if not sets:
        if problems:
            raise FatalError(f"{folder.name}: {problems[0]}")
        if unsafe := [name for name in paths if is_unsafe(name)]:
            raise FatalError(
                f"{folder.name}/{unsafe[0]} is a pickle or another format that can run code when it is loaded; expected .safetensors. "
                "Convert it where you trust it: save_pretrained(folder, safe_serialization=True)"
            )
        return ()
    ranked = []
    for number, found in enumerate(sets):
        files = tuple(_read(folder / name) for name in found.files)
        precision = precision_of([entry for file in files for entry in file.entries])
        rank = dtypes.index(precision) if precision in dtypes else len(dtypes)
        ranked.append((rank, "non_ema" in found.name, found.size_bytes, number, files))
    return min(ranked, key=lambda item: item[:4])[4]


def variant_of(files: Sequence[WeightFile]) -> str | None:
    """The libraries' word for the variant of these files: `fp16` of `model.fp16.safetensors`, also of `model.fp16-00001-of-00002...`."""
    name = re.sub(r"-\d{5}-of-\d{5}", "", files[0].path.name) if files else ""
    return name.partition(".")[2].removesuffix("safetensors").removesuffix(".") or None


def identity(folder: Path, files: Sequence[WeightFile], digests: Mapping[str, str], prefix: str, form: str) -> str:
    """A name for these weights in this form: by their content, so that models which share them find each other's."""
    hasher = hashlib.sha256(f"{_FORM}|{form}".encode())
    for file in sorted(files, key=lambda f: f.path.name):
        known = digests.get(f"{prefix}{file.path.name}") or _digest_of(file.path)
        hasher.update(known.encode() + b"|")
    for config in sorted(folder.glob("*config.json")):
        hasher.update(config.read_bytes())
    return f"sha256:{hasher.hexdigest()}"


def load_tensors(files: Sequence[WeightFile], device: Device, control: LoadControl) -> dict[str, Any]:
    """Every tensor of these files on the device, as views of one slab."""
    torch = import_torch()
    dtypes = torch_dtypes(torch)
    places, at = [], 0
    for file in files:
        places.append(at)
        at += -(-(file.data_end - file.data_start) // ALIGN) * ALIGN
    slab = device.new_slab(max(at, 1))
    with host_buffers(device.host, files) as buffers:
        extents = [
            Extent(file.path, file.data_start, file.data_end, place, *buffers.get(file.path, (None, False)))
            for file, place in zip(files, places, strict=True)
        ]
        read_into(slab, extents, control.on_bytes, control.cancel)
    tensors: dict[str, Any] = {}
    for file, place in zip(files, places, strict=True):
        for entry in file.entries:
            dtype = dtypes.get(entry.dtype)
            if dtype is None:
                raise NotUnderstoodError(f"dtype {entry.dtype}")
            if (place + entry.start) % dtype.itemsize:
                raise NotUnderstoodError(f"tensor {entry.name!r} is not aligned")
            tensors[entry.name] = slab.tensor(place + entry.start, place + entry.end, dtype, entry.shape)
    return tensors


@contextmanager
def host_buffers(host: HostTier | None, files: Sequence[WeightFile]) -> Iterator[dict[Path, tuple[HostBuffer, bool]]]:
    """Buffers of the host tier for these files, and whether they are filled; those to fill are kept if the block succeeds."""
    found: dict[Path, tuple[HostBuffer, bool]] = {}
    keys: dict[Path, str] = {}
    try:
        for file in files if host is not None else ():
            assert host is not None
            key = file_key(file.path)
            size = file.data_end - file.data_start
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


def build_module(
    make: Callable[[], Any], tensors: dict[str, Any], device: Device, dtype: Any, *, cast_buffers: bool, there: Collection[str] = ()
) -> Any:
    """A module around these tensors: made without memory or initialisation, then given its weights. `NotUnderstoodError` when they do not
    fit it. `there`: names of tensors that it has already."""
    torch = import_torch()
    with BUILDING:  # until all is in its place: `setattr` of a parameter goes through what libraries replace in torch
        with parameters_on_meta(torch):
            module = make()
        shapes = module.state_dict()
        if strange := [name for name in tensors if name not in shapes and not name.endswith("position_ids")]:
            raise NotUnderstoodError(f"the module has no {strange[0]!r}")
        state = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in tensors.items() if name in shapes}
        if wrong := [name for name, tensor in state.items() if tensor.shape != shapes[name].shape]:
            raise NotUnderstoodError(misfit(wrong[0], state[wrong[0]], shapes[wrong[0]]))
        missing = {name for name in shapes if name not in tensors and name not in there and not may_be_missing(name)}
        module.load_state_dict(state, strict=False, assign=True)
        if missing := _tie(module, missing):
            raise NotUnderstoodError(f"the files lack {min(missing)!r}")
    _move_buffers(module, device.name, dtype if cast_buffers else None)
    module.requires_grad_(False)
    return module.eval()


def misfit(name: str, found: Any, expected: Any) -> str:
    """The message about a tensor of another shape than the module's."""
    return f"{name!r} has the shape {list(found.shape)} in the files, the configuration asks for {list(expected.shape)}"


def _tie(module: Any, missing: set[str]) -> set[str]:
    """Tie what the library ties, as its own loading does; the names that are missing all the same.

    Since transformers 5 two weights that are both in the files are tied only if they are equal. Older versions tie whatever the
    configuration says.
    """
    tie = getattr(module, "tie_weights", None)
    if not callable(tie):
        return missing
    if "missing_keys" in inspect.signature(tie).parameters:
        tie(missing_keys=missing, recompute_mapping=False)  # takes names off the set
        return missing
    tie()
    state = module.state_dict()
    return {name for name in missing if state[name].is_meta}


def load_module(
    make: Callable[[], Any], files: Sequence[WeightFile], device: Device, dtype: Any, control: LoadControl, *, cast_buffers: bool
) -> tuple[Any, int]:
    """A module with the weights of these files, and the bytes that it takes."""
    tensors = load_tensors(files, device, control)
    module = build_module(make, tensors, device, dtype, cast_buffers=cast_buffers)
    return module, tensor_bytes(module)


def loaded_bytes(files: Sequence[WeightFile], itemsize: int) -> int:
    """Bytes of these weights once their floats have `itemsize` bytes each."""
    total = 0
    for entry in (entry for file in files for entry in file.entries):
        count = 1
        for length in entry.shape:
            count *= length
        total += count * itemsize if entry.dtype in _FLOATS else entry.end - entry.start
    return total


def torch_dtypes(torch: Any) -> dict[str, Any]:
    """safetensors' names of dtypes as torch's."""
    found = {
        "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64, "I32": torch.int32,
        "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
    }  # fmt: skip
    return found | {"F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2}


@contextmanager
def parameters_on_meta(torch: Any) -> Iterator[None]:
    """In this thread, modules made here get parameters without memory; buffers are computed as ever."""
    thread = threading.get_ident()
    with BUILDING:
        original = torch.nn.Module.register_parameter

        def register(self: Any, name: str, param: Any) -> None:
            original(self, name, param)
            if param is not None and threading.get_ident() == thread:
                self._parameters[name] = torch.nn.Parameter(param.to("meta"), requires_grad=False)

        torch.nn.Module.register_parameter = register
        try:
            yield
        finally:
            torch.nn.Module.register_parameter = original


def _move_buffers(module: Any, device: str, dtype: Any) -> None:
    for part in module.modules():
        for name, buffer in part._buffers.items():
            if buffer is not None:
                cast = dtype is not None and buffer.is_floating_point() and buffer.itemsize > 1  # weights in eight bits are buffers, too
                part._buffers[name] = buffer.to(device, dtype if cast else None)


def _read(path: Path) -> WeightFile:
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            head = file.read(8)
            length = header_size(head, size)
            entries = read_header(head + file.read(length), size)
    except HeaderError as exc:
        raise FatalError(f"{path.parent.name}/{path.name}: {exc}") from None
    return WeightFile(path, tuple(entries), 8 + length, size)


def _json(path: Path) -> Any:
    try:
        return msgspec.json.decode(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None  # an index without a weight_map, which is what is said of it


def _digest_of(path: Path) -> str:
    """By content up to 1 GB, beyond by the file itself: large local files are not read twice."""
    stat = path.stat()
    return _content_of(path, stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns)


@lru_cache(4096)
def _content_of(path: Path, device: int, inode: int, size: int, mtime_ns: int) -> str:
    return digest_file(path, "blake3:") if size <= HASH_BELOW_BYTES else f"file:{device}:{inode}:{size}:{mtime_ns}"
