"""A lock between making releases and deleting unused files."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Making:
    """One for each leader, on its event loop. Several releases may be made at the same time."""

    def __init__(self) -> None:
        self._count = 0
        self._changed = asyncio.Condition()
        self._is_alone = False

    @asynccontextmanager
    async def making(self) -> AsyncIterator[None]:
        """A release is being made: files found on the disk stay there until this block ends."""
        async with self._changed:
            await self._changed.wait_for(lambda: not self._is_alone)
            self._count += 1
        try:
            yield
        finally:
            self._count -= 1
            await asyncio.shield(self._tell())

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """No release is being made; starting one waits. Hold it only briefly."""
        async with self._changed:
            await self._changed.wait_for(lambda: not self._count and not self._is_alone)
            self._is_alone = True
        try:
            yield
        finally:
            self._is_alone = False
            await asyncio.shield(self._tell())

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()
