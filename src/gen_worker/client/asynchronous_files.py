"""`client.files` for asyncio."""

import asyncio
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from gen_worker.authoring.assets import Asset
from gen_worker.client import file_flows
from gen_worker.client.file_flows import FileLike, Progress, Target, source_of, target_of

if TYPE_CHECKING:
    from gen_worker.client.asynchronous import AsyncClient


class AsyncFiles:
    """`Files` with awaitable methods. Disks are read and written in threads; for uploads, `progress` is also called in a thread."""

    def __init__(self, client: "AsyncClient") -> None:
        self._client = client

    async def upload(self, source: str | Path | bytes, ref: str = "", *, progress: Progress | None = None) -> Asset:
        """Like `Files.upload`."""
        content, name = source_of(source, ref)
        return await self._client._perform(file_flows.upload(self._client._flows, content, name, ref, progress))

    async def download(self, file: FileLike, path: str | Path | None = None, *, progress: Progress | None = None) -> Path:
        """Like `Files.download`."""
        where = target_of(file, path)
        await self._fetch(file, where, progress)
        return where

    async def read(self, file: FileLike, *, progress: Progress | None = None) -> bytes:
        """Like `Files.read`."""
        return await self._fetch(file, None, progress)

    async def _fetch(self, file: FileLike, path: Path | None, progress: Progress | None) -> bytes:
        target = await asyncio.to_thread(Target, path, progress)
        try:
            async with contextlib.aclosing(self._client._drive(file_flows.download(self._client._flows, file))) as pieces:
                async for piece in pieces:
                    await asyncio.to_thread(target.take, piece)
            await asyncio.to_thread(target.keep)
        finally:
            target.drop()
        return bytes(target.data)
