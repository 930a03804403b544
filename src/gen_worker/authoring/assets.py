"""Files as values: an `Asset` in a payload is a file on disk when the function runs; in an output it names a saved file."""

from pathlib import Path
from typing import BinaryIO, cast

import msgspec


class Asset(msgspec.Struct, omit_defaults=True):
    """A file by reference.

    `ref`: a logical path (`runs/<run_id>/outputs/x.png`), an http(s) URL or, in the dev runner, a data URI.
    `local_path` is set by the worker before the function runs, never by a caller. `sha256` is hex.
    """

    ref: str
    owner: str | None = None
    local_path: str | None = None
    mime_type: str | None = None
    size_bytes: int | None = None
    sha256: str | None = None

    def __fspath__(self) -> str:
        if self.local_path is None:
            raise ValueError(f"asset {self.ref[:200]!r} is not on this disk; inputs are fetched before a function runs, outputs are not")
        return self.local_path

    def open(self, mode: str = "rb") -> BinaryIO:
        """Open the file, binary modes only."""
        if "b" not in mode:
            raise ValueError(f"mode {mode!r}; assets are opened in binary modes such as 'rb'")
        return cast(BinaryIO, Path(self).open(mode))

    def exists(self) -> bool:
        """Whether the file is on this disk."""
        return self.local_path is not None and Path(self.local_path).exists()

    def read_bytes(self, max_bytes: int | None = None) -> bytes:
        """The whole content; `ValueError` when it is larger than `max_bytes`."""
        with self.open() as file:
            data = file.read() if max_bytes is None else file.read(max_bytes + 1)
        if max_bytes is not None and len(data) > max_bytes:
            raise ValueError(f"asset {self.ref[:200]!r} is larger than the {max_bytes} bytes allowed here")
        return data
