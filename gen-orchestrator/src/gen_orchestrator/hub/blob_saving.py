"""Receives one blob of a model: it gets its name when its digest was found correct."""

import os
import secrets
from pathlib import Path

from blake3 import blake3

from gen_orchestrator.hub.blobs import WRITTEN_OUT_BYTES
from gen_worker.net.disk_calls import start_writing


class BlobSaving:
    """A blob being received; visible under its digest only after the digest was found correct."""

    def __init__(self, target: Path, digest: str) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        self._target = target
        self._digest = digest
        self._new = target.with_name(f".new-{secrets.token_hex(6)}")
        self._file = self._new.open("xb")
        self._hasher = blake3()
        self._waiting_bytes = 0

    def write(self, data: bytes) -> None:
        self._file.write(data)
        self._hasher.update(data)
        self._waiting_bytes += len(data)
        if self._waiting_bytes >= WRITTEN_OUT_BYTES:  # else the sync at the end holds up the database's
            self._waiting_bytes = 0
            self._file.flush()
            start_writing(self._file.fileno())

    def finish(self) -> bool:
        """Keep it; False when its content does not match the digest."""
        if self._hasher.hexdigest() != self._digest:
            return False
        self._file.flush()
        os.fsync(self._file.fileno())
        self._new.chmod(0o444)
        self._new.replace(self._target)
        return True

    def drop(self) -> None:
        """Close it; it is deleted unless it was kept."""
        self._file.close()
        self._new.unlink(missing_ok=True)
