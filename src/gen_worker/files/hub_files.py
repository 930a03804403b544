"""The output store of a worker on the wire: saves files through the file API."""

import os
from collections.abc import Iterator
from pathlib import Path

from gen_worker.authoring.assets import Asset
from gen_worker.files.file_api import CHUNK_BYTES, FileApi
from gen_worker.files.local_outputs import normalize_output_ref


class HubOutputs:
    """Sends files in pieces of 1 MiB as it reads them. `max_bytes` 0 means no limit."""

    def __init__(self, api: FileApi, owner: str | None, max_bytes: int) -> None:
        self._api = api
        self._owner = owner
        self._max_bytes = max_bytes

    def save_bytes(self, ref: str, data: bytes, *, create: bool) -> Asset:
        ref = normalize_output_ref(ref)
        self._check(ref, len(data))

        def body() -> Iterator[bytes]:
            for start in range(0, len(data), CHUNK_BYTES):
                yield data[start : start + CHUNK_BYTES]

        saved = self._api.save(ref, body, len(data), create=create)
        return Asset(ref, self._owner, None, saved.mime_type, _or(saved.size_bytes, len(data)), saved.sha256)

    def save_file(self, ref: str, path: Path, *, create: bool) -> Asset:
        ref = normalize_output_ref(ref)
        with path.open("rb") as file:
            size_bytes = os.fstat(file.fileno()).st_size
            self._check(ref, size_bytes)

            def body() -> Iterator[bytes]:
                file.seek(0)
                left = size_bytes  # bytes appended meanwhile do not belong to the saved file
                while left and (chunk := file.read(min(CHUNK_BYTES, left))):
                    left -= len(chunk)
                    yield chunk

            saved = self._api.save(ref, body, size_bytes, create=create)
        return Asset(ref, self._owner, None, saved.mime_type, _or(saved.size_bytes, size_bytes), saved.sha256)

    def _check(self, ref: str, size_bytes: int) -> None:
        if self._max_bytes and size_bytes > self._max_bytes:
            raise ValueError(
                f"output file too large: {ref[:200]!r} has {size_bytes} bytes, "
                f"at most {self._max_bytes} are allowed (WORKER_MAX_UPLOAD_BYTES)"
            )


class NoFiles:
    """The output store of a run without a usable file API."""

    def __init__(self, reason: str) -> None:
        self._reason = reason

    def save_bytes(self, ref: str, data: bytes, *, create: bool) -> Asset:
        raise RuntimeError(self._reason)

    def save_file(self, ref: str, path: Path, *, create: bool) -> Asset:
        raise RuntimeError(self._reason)


NO_FILE_API = "no place to save files: the run came without file_base_url and file_token; set FILE_API_BASE_URL and FILE_API_TOKEN"


def _or(value: int | None, other: int) -> int:
    return other if value is None else value
