"""The platform's disk use, over HTTP."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import msgspec

from gen_orchestrator.api.access import caller_of
from gen_orchestrator.domain.access import ALL_OWNERS
from gen_orchestrator.hub.disk_report import DiskReport
from gen_orchestrator.hub.release_disk import DiskUse
from gen_worker.http.asgi import Request, RequestError

GOOD_S = 300.0  # a report of this age is recent enough for `/metrics`


class DiskRoutes:
    """Handler of `GET /v1/disk`, and the disk figures for other pages. `look` reads the folder, and blocks; `use` gives
    the bytes of an owner's releases.
    """

    def __init__(self, look: Callable[[], DiskReport], use: Callable[[str], Awaitable[DiskUse]]) -> None:
        self._look = look
        self.use = use
        self._looking: asyncio.Task[DiskReport] | None = None
        self._found: tuple[float, DiskReport] | None = None

    async def get(self, request: Request) -> None:
        """`GET /v1/disk`: bytes by kind, and which command frees how much. For operators."""
        if caller_of(request).owner != ALL_OWNERS:
            raise RequestError(403, "forbidden", "the disk belongs to all owners together: show an operator's key (operator.key)")
        try:
            found = await asyncio.shield(self._begin())
        except OSError as exc:
            raise RequestError(503, "storage", f"the data folder cannot be read: {exc}", headers={"retry-after": "5"}) from None
        await request.answer(200, msgspec.json.encode(found))

    def known(self) -> DiskReport | None:
        """The last report. If it is too old, a new one is started in the background."""
        if self._found is None or time.monotonic() - self._found[0] > GOOD_S:
            self._begin()
        return self._found[1] if self._found is not None else None

    async def stop(self) -> None:
        """Stop at the end of the leadership."""
        if self._looking is not None:
            await asyncio.gather(self._looking, return_exceptions=True)

    def _begin(self) -> "asyncio.Task[DiskReport]":
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._see(), name="disk-report")
            self._looking.add_done_callback(lambda task: task.cancelled() or task.exception())
        return self._looking

    async def _see(self) -> DiskReport:
        found = await asyncio.to_thread(self._look)
        self._found = time.monotonic(), found
        return found
