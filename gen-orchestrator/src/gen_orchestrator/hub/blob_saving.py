"""Receives one blob of a model. The blob gets its name once its digest has been found correct."""

import contextlib
import os
import secrets
from collections.abc import Callable
from pathlib import Path

from blake3 import blake3

from gen_orchestrator.hub.half_files import begin
from gen_worker.net.writing_out import WritingOut

NEW = ".new-"  # begins the name of a file that is not complete yet


class BlobSaving:
    """A blob being received; visible under its digest only after the digest has been found correct."""

    def __init__(self, target: Path, keep: Callable[[Path], None]) -> None:
        """`target` is named by the digest; `keep` gives its name to the complete file."""
        target.parent.mkdir(parents=True, exist_ok=True)
        self._digest = target.name
        self._keep = keep
        self._new = target.with_name(f"{NEW}{secrets.token_hex(6)}")
        self._file = begin(self._new)
        self._out = WritingOut(self._file)
        self._hasher = blake3()

    def write(self, data: bytes) -> None:
        self._out.write(data)
        self._hasher.update(data)

    def finish(self) -> bool:
        """Store it; False if its content does not match the digest."""
        if self._hasher.hexdigest() != self._digest:
            return False
        self._file.flush()
        os.fsync(self._file.fileno())
        self._new.chmod(0o444)
        self._keep(self._new)
        return True

    def drop(self) -> None:
        """Close it, and delete it unless it was stored."""
        with contextlib.suppress(OSError):  # closing writes the rest, and there may be no room for it
            self._file.close()
        self._new.unlink(missing_ok=True)
