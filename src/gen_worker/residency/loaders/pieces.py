"""Sharded weight files: what the index names, and what the shards hold."""

from pathlib import Path
from typing import Any

import msgspec

from gen_worker.errors import FatalError
from gen_worker.sources.weight_files import HeaderError, TensorEntry, header_size, is_index, read_header


def header_of(path: Path) -> tuple[tuple[TensorEntry, ...], int]:
    """The tensors of a safetensors file, and the byte where their data begins; `FatalError` when the header contradicts the file."""
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            head = file.read(8)
            length = header_size(head, size)
            return tuple(read_header(head + file.read(length), size)), 8 + length
    except HeaderError as exc:
        raise FatalError(f"{path.parent.name}/{path.name}: {exc}") from None


def index_of(path: Path) -> Any:
    """An index file's content, whatever it is; None when it cannot be read. Callers treat None as an index without a weight_map."""
    try:
        return msgspec.json.decode(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None


def promised_but_absent(folder: Path) -> frozenset[str]:
    """Tensors that an index in the folder names but no shard holds."""
    names = [path.name for path in folder.iterdir() if path.is_file()] if folder.is_dir() else []
    promised: set[str] = set()
    for name in filter(is_index, names):
        content = index_of(folder / name)
        listed = content.get("weight_map") if isinstance(content, dict) else None
        promised.update(listed if isinstance(listed, dict) else ())
    if not promised:
        return frozenset()
    held = {entry.name for name in names if name.endswith(".safetensors") for entry in header_of(folder / name)[0]}
    return frozenset(promised - held)
