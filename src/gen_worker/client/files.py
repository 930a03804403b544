"""`client.files`: uploads inputs for runs to the server, and downloads files that runs have saved."""

from pathlib import Path
from typing import TYPE_CHECKING

from gen_worker.authoring.assets import Asset
from gen_worker.client import file_flows
from gen_worker.client.file_flows import FileLike, Progress, Target, source_of, target_of

if TYPE_CHECKING:
    from gen_worker.client.blocking import Client


class Files:
    """Files of one server. `progress` is called with bytes done and bytes in all (0 when unknown)."""

    def __init__(self, client: "Client") -> None:
        self._client = client

    def upload(self, source: str | Path | bytes, ref: str = "", *, progress: Progress | None = None) -> Asset:
        """Send a file, given by its path or its bytes; returns the value for a payload: `{"image":
        client.files.upload("cat.png")}`.

        `ref`: the name to save it under, replacing an existing file; by default a new name. A dev runner saves nothing:
        the file is sent with each payload.
        """
        content, name = source_of(source, ref)
        return self._client._perform(file_flows.upload(self._client._flows, content, name, ref, progress))

    def download(self, file: FileLike, path: str | Path | None = None, *, progress: Progress | None = None) -> Path:
        """Fetch a file completely or not at all: an output (`run.files[0]`), an `Asset`, or a ref. By default under its
        own name in the current folder.
        """
        where = target_of(file, path)
        self._fetch(file, where, progress)
        return where

    def read(self, file: FileLike, *, progress: Progress | None = None) -> bytes:
        """The bytes of a file."""
        return self._fetch(file, None, progress)

    def _fetch(self, file: FileLike, path: Path | None, progress: Progress | None) -> bytes:
        target = Target(path, progress)
        try:
            for piece in self._client._drive(file_flows.download(self._client._flows, file)):
                target.take(piece)
            target.keep()
        finally:
            target.drop()
        return bytes(target.data)
