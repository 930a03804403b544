"""Receives a file into the blob store: writes, counts and hashes its bytes as they arrive."""

import hashlib
from concurrent.futures import Future, ThreadPoolExecutor

from gen_orchestrator.hub.blobs import Blobs

HASHED_ASIDE_BYTES = 256 << 10  # below it, a thread costs more than the digest


class Receiving:
    """One blob being received. Call `close`, or `abort`, or both in this order; from one thread at a time."""

    def __init__(self, blobs: Blobs, key: str) -> None:
        self.size_bytes = 0
        self.is_kept = False
        self._writer = blobs.writer(key)
        self._digest = hashlib.sha256()
        self._hasher: ThreadPoolExecutor | None = None
        self._hashing: Future[None] | None = None

    def write(self, data: bytes) -> None:
        """Write the next bytes. SHA-256 takes as long as receiving and writing together, so another thread computes it."""
        self.size_bytes += len(data)
        if self._hasher is None and len(data) < HASHED_ASIDE_BYTES:
            self._digest.update(data)
            self._writer.write(data)
            return
        if self._hasher is None:
            self._hasher = ThreadPoolExecutor(1, thread_name_prefix="file-digest")
        if self._hashing is not None:
            self._hashing.result()  # at most one piece waits
        self._hashing = self._hasher.submit(self._digest.update, data)
        self._writer.write(data)

    def close(self) -> str:
        """The blob is complete, and safe under its key from now on. Returns its SHA-256 in hex."""
        self._writer.close()
        self.is_kept = True
        self._end_hasher()
        return self._digest.hexdigest()

    def abort(self) -> None:
        """Abandon the blob and leave nothing. Does nothing after `close`."""
        self._end_hasher()
        self._writer.abort()

    def _end_hasher(self) -> None:
        if self._hasher is not None:
            self._hasher.shutdown()
