"""What a weight file's name and header say: its variant, its precision, and which shards belong together. Pure."""

import re
import struct
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import msgspec

MAX_HEADER_BYTES = 32 << 20
MAX_DIMENSIONS = 64
MODEL_STEMS = ("model", "diffusion_pytorch_model")
ADAPTER_STEMS = ("adapter_model", "pytorch_lora_weights")
UNSAFE_SUFFIXES = (".bin", ".ckpt", ".pt", ".pth", ".pkl", ".pickle", ".h5", ".msgpack", ".ot", ".npz", ".joblib")

_SHARD = re.compile(r"-(\d{5})-of-(\d{5})(?=\.)")
_MARK = re.compile(r"(?:^|[._-])(fp16|f16|bf16|fp8|float8|f8|int8|8bit|int4|4bit|fp32|f32)(?=[._-]|$)", re.IGNORECASE)
_MARKS = {"f16": "fp16", "float8": "fp8", "f8": "fp8", "8bit": "int8", "4bit": "int4", "f32": "fp32"}
# safetensors dtype names (its README, "Format") mapped to ours, with their bits.
_DTYPES = {
    "F64": ("fp32", 64),
    "F32": ("fp32", 32),
    "F16": ("fp16", 16),
    "BF16": ("bf16", 16),
    "F8_E4M3": ("fp8", 8),
    "F8_E5M2": ("fp8", 8),
    "F8_E8M0": ("fp8", 8),
    "I8": ("int8", 8),
    "U8": ("int8", 8),
    "F4": ("int4", 4),
}
DTYPE_BITS = {name: bits for name, (_, bits) in _DTYPES.items()} | {
    "I16": 16, "U16": 16, "I32": 32, "U32": 32, "I64": 64, "U64": 64, "BOOL": 8, "C64": 64, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip
REDUCED_SHARE = 0.9  # norms and scales are often kept in float32


class HeaderError(ValueError):
    """A safetensors header that contradicts its file."""


class TensorEntry(msgspec.Struct, frozen=True):
    """One tensor; `start` and `end` are byte offsets after the header."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


class WeightSet(msgspec.Struct, frozen=True):
    """One complete set of a component's weights: a single file, or an index with all its shards."""

    files: tuple[str, ...]
    index: str = ""
    size_bytes: int = 0

    @property
    def name(self) -> str:
        return self.index or self.files[0]

    @property
    def marked(self) -> str | None:
        """The precision in the name."""
        return precision_in_name(self.name)


def precision_in_name(path: str) -> str | None:
    """fp16, bf16, fp8, int8, int4 or fp32 if a file's name contains it."""
    found = _MARK.findall(PurePosixPath(path).name)
    word = found[-1].lower() if found else None
    return _MARKS.get(word, word) if word else None


def is_unsafe(path: str) -> bool:
    """Whether a file can run code when it is loaded, or holds weights in a format that we do not take."""
    return path.lower().endswith(UNSAFE_SUFFIXES)


def shard_of(path: str) -> tuple[int, int] | None:
    """Number and count of a shard such as `model-00002-of-00005.safetensors`."""
    found = _SHARD.search(path)
    return (int(found[1]), int(found[2])) if found else None


def read_header(data: bytes, file_size: int) -> list[TensorEntry]:
    """The tensors of a safetensors file, from its first bytes; `HeaderError` for a header that contradicts the file.
    Format: safetensors' README.

    Tensors must follow each other without gap or overlap, and end where the file ends.
    """
    size = header_size(data, file_size)
    try:
        raw = msgspec.json.decode(data[8 : 8 + size], type=dict[str, dict[str, Any]])
    except (ValueError, RecursionError) as exc:  # UnicodeDecodeError is a ValueError, too
        raise HeaderError(f"its header is not JSON: {exc}") from None
    raw.pop("__metadata__", None)
    entries = sorted((_entry(name, fields) for name, fields in raw.items()), key=lambda entry: (entry.start, entry.end))
    at = 0
    for entry in entries:
        if entry.start != at or entry.end < entry.start:
            raise HeaderError(f"tensor {entry.name[:80]!r} begins at byte {entry.start}, expected {at}")
        at = entry.end
    if at != file_size - 8 - size:
        raise HeaderError(f"its tensors take {at} bytes, the file holds {file_size - 8 - size}")
    return entries


def header_size(data: bytes, file_size: int) -> int:
    """The length of a header in bytes, read from the first eight bytes of a file."""
    if len(data) < 8 or file_size < 10:
        raise HeaderError("it is too short to be a safetensors file")
    size = int(struct.unpack("<Q", data[:8])[0])
    if size > MAX_HEADER_BYTES or size > file_size - 8:
        raise HeaderError(f"its header claims {size} bytes; at most {min(MAX_HEADER_BYTES, file_size - 8)} are possible")
    return size


def _entry(name: str, fields: Mapping[str, Any]) -> TensorEntry:
    dtype, shape, offsets = fields.get("dtype"), fields.get("shape"), fields.get("data_offsets")
    if not isinstance(shape, list) or not isinstance(offsets, list):
        shape, offsets = [-1], [0, 0]
    numbers = [*shape, *offsets]
    if (
        not isinstance(dtype, str)
        or dtype not in DTYPE_BITS
        or not all(type(n) is int and 0 <= n < 1 << 63 for n in numbers)
        or len(shape) > MAX_DIMENSIONS
        or len(offsets) != 2
    ):
        raise HeaderError(f"tensor {name[:80]!r} is described as {str(dict(fields))[:120]}")
    bits = DTYPE_BITS[dtype]
    for length in shape:
        bits *= length
    if bits != (offsets[1] - offsets[0]) * 8:
        raise HeaderError(f"tensor {name[:80]!r} of shape {shape} and dtype {dtype} does not take {offsets[1] - offsets[0]} bytes")
    return TensorEntry(name, dtype, tuple(shape), offsets[0], offsets[1])


def precision_of(entries: Sequence[TensorEntry]) -> str | None:
    """The precision of most of the weights; fp32 if more than a tenth of the bytes are float32."""
    sizes: dict[str, int] = {}
    for entry in entries:
        name = _DTYPES.get(entry.dtype, ("", 0))[0]
        sizes[name] = sizes.get(name, 0) + entry.end - entry.start
    total = sum(sizes.values()) - sizes.pop("", 0)
    if total <= 0:
        return None
    if sizes.get("fp32", 0) > (1 - REDUCED_SHARE) * total:
        return "fp32"
    sizes.pop("fp32", None)
    return max(sizes, key=lambda name: sizes[name])


def weight_sets(
    paths: Sequence[str], sizes: Mapping[str, int], index_files: Mapping[str, Any], folder: str
) -> tuple[list[WeightSet], list[str]]:
    """The complete safetensors sets of a folder, and what is wrong with the incomplete ones.

    `index_files`: the content of `*.safetensors.index*.json` files, whatever it is. Both
    `x.safetensors.index.fp16.json` and `x.fp16.safetensors.index.json` occur. When a file and an index have the same
    name, the one that the library reads counts: diffusers takes the index, transformers and all others the file. The
    other one is left over from an earlier save into the same folder.
    """
    here = [path for path in paths if PurePosixPath(path).parent == PurePosixPath(folder or ".")]
    present, sets, problems = set(here), [], []
    shards: set[str] = set()
    for index in sorted(path for path in here if is_index(path)):
        if index not in index_files:
            continue
        content = index_files[index]
        named = content.get("weight_map") if isinstance(content, dict) else None
        if not isinstance(named, dict) or not named or not all(isinstance(value, str) for value in named.values()):
            problems.append(f"{index} has no weight_map of tensors to files")
            continue
        names = sorted(set(named.values()))
        if strange := [name for name in names if "/" in name or not name.endswith(".safetensors")]:
            problems.append(f"{index} names {strange[0][:120]!r}; expected a .safetensors file beside it")
            continue
        files = tuple(f"{folder}/{name}" if folder else name for name in names)
        shards.update(files)
        if missing := [file for file in files if file not in present]:
            problems.append(f"{index} names {missing[0]!r}, which the repository lacks")
            continue
        sets.append(WeightSet(files, index, sum(sizes.get(file, 0) for file in files)))
    for path in here:
        if path.endswith(".safetensors") and path not in shards:
            shard = shard_of(path)
            if shard is None or shard[1] == 1:
                sets.append(WeightSet((path,), "", sizes.get(path, 0)))
            elif not any("index" in problem for problem in problems):
                problems.append(f"{path} is a shard that is in no index")
    return _as_libraries_read(sets), problems


def _as_libraries_read(sets: list[WeightSet]) -> list[WeightSet]:
    indexed = {_file_of(found.index) for found in sets if found.index}
    both = indexed & {found.name for found in sets}
    by_diffusers = {name for name in both if PurePosixPath(name).name.startswith("diffusion_pytorch_model")}
    return [
        found for found in sets if (_file_of(found.index) not in both - by_diffusers if found.index else found.name not in by_diffusers)
    ]


def _file_of(index: str) -> str:
    """The single file that would hold what an index lists: `model.fp16.safetensors`."""
    stem, _, variant = index.removesuffix(".json").partition(".safetensors.index")
    return f"{stem}{variant}.safetensors"


def by_name(sets: Sequence[WeightSet], stems: Sequence[str]) -> list[WeightSet]:
    """The sets that a library would look for: names that begin with one of `stems`; others only when there are none."""
    usual = [found for found in sets if PurePosixPath(found.name).name.partition(".")[0] in stems]
    plain = [found for found in usual if "non_ema" not in found.name]
    others = [found for found in sets if PurePosixPath(found.name).name.partition(".")[0] not in (*ADAPTER_STEMS, *MODEL_STEMS)]
    return plain or usual or others or list(sets)


def is_index(path: str) -> bool:
    """Whether a file lists the shards of a safetensors set."""
    name = PurePosixPath(path).name
    return ".safetensors.index" in name and name.endswith(".json")
