"""Measured sizes and load times, kept in a small file beside the models so that they survive restarts."""

import math
import threading
from pathlib import Path
from typing import Annotated

import msgspec

from gen_worker.shared_files import read_json, write_whole

FADE = 0.98  # each later measurement below the maximum lowers it by 2 %
MAX_ENTRIES = 4096
NET = "net: bytes a second"  # names of measurements
LOAD = "load: bytes a second"


class Measured(msgspec.Struct, frozen=True):
    """Measured values of a part, or of a (function, model, shape): bytes on the device (a decaying maximum) and seconds
    to load.

    Of a link (network to disk, disk to device): `bytes_s`, its rate.
    """

    size_bytes: Annotated[int, msgspec.Meta(ge=0)] = 0
    load_s: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    bytes_s: Annotated[int, msgspec.Meta(ge=0)] = 0


class Measurements:
    """Read at start, written after each change. When the file cannot be read or written, only the remembered values are lost."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._known: dict[str, Measured] = {}
        if path is not None:
            self._known = read_json(path, dict[str, Measured]) or {}

    def of(self, name: str) -> Measured | None:
        with self._lock:
            return self._known.get(name)

    def rate(self, name: str) -> int:
        """The measured rate of a link in bytes/s; 0 before the first measurement."""
        known = self.of(name)
        return known.bytes_s if known is not None else 0

    def note_rate(self, name: str, bytes_s: int) -> None:
        """Record a link's rate. The stored rate rises at once and falls slowly."""
        with self._lock:
            old = self._known.pop(name, None)
            self._known[name] = Measured(bytes_s=max(bytes_s, math.ceil(old.bytes_s * FADE)) if old else bytes_s)
            self._write()

    def note(self, name: str, size_bytes: int, load_s: float = 0.0) -> None:
        """Record a measurement. The stored size rises at once and falls slowly."""
        with self._lock:
            old = self._known.pop(name, None)
            size = max(size_bytes, math.ceil(old.size_bytes * FADE)) if old else size_bytes
            self._known[name] = Measured(size, load_s or (old.load_s if old else 0.0))
            while len(self._known) > MAX_ENTRIES:
                del self._known[next(iter(self._known))]
            self._write()

    def _write(self) -> None:
        if self._path is None:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self._path, msgspec.json.encode(self._known))
        except OSError:
            self._path = None
