"""Models being downloaded to this disk. Each is downloaded once, however many runs wait for it. The download is
cancelled when the last waiter leaves.

All methods belong to one event loop.
"""

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from gen_worker.content.measured import NET, Measurements
from gen_worker.content.progress import Listener, Progress
from gen_worker.contract.progress import ModelProgress
from gen_worker.foreign import contained
from gen_worker.sources.source import LocalModel, ModelSource, ModelWant

T = TypeVar("T")
MEASURED_ABOVE_BYTES = 16 << 20


class _Arrival:
    def __init__(self, model_id: str) -> None:
        self.progress = Progress(model_id)
        self.cancel = threading.Event()
        self.waiters = 0
        self.task: asyncio.Future[LocalModel] | None = None


class Arrivals:
    """`source` blocks, so it is called in threads: as many as the models that may download at once, and one that only
    reads the disk.

    `is_right` checks the files of a model on disk before its first use; False: it has to be downloaded again.
    """

    def __init__(
        self,
        source: ModelSource,
        downloads: int,
        measurements: Measurements | None = None,
        is_right: Callable[[LocalModel], bool] = lambda local: True,
    ) -> None:
        self._measurements = measurements
        self._is_right = is_right
        self._source = source
        self._downloads = ThreadPoolExecutor(max(1, downloads), thread_name_prefix="model-fetch")
        self._looks = ThreadPoolExecutor(1, thread_name_prefix="model-look")
        self._known: dict[tuple[str, ...], LocalModel] = {}
        self._arriving: dict[tuple[str, ...], _Arrival] = {}

    def known(self, want: ModelWant) -> LocalModel | None:
        """The model if it was located before; does not read the disk."""
        return self._known.get(_identity(want))

    async def look(self, work: Callable[[], T]) -> T:
        """Run something that reads this disk, outside the loop."""
        return await asyncio.get_running_loop().run_in_executor(self._looks, contained, work)

    async def present(self, want: ModelWant) -> LocalModel | None:
        """The model if it is on this disk; uses no network."""
        return await self.look(lambda: self._source.present(want))

    async def locate(self, want: ModelWant, listener: Listener | None = None) -> LocalModel:
        """Find a model on this disk, or download it. `listener` is told the progress. Raises a `WorkerError` with the
        reason when that fails.
        """
        found = self.known(want)
        if found is None or not found.path.exists():
            found = await self.present(want)
            if found is not None and not await self._may_be_used(found):
                found = None
        if found is None:
            found = await self._arrive(want, listener)
        self._known[_identity(want)] = found
        return found

    async def _may_be_used(self, local: LocalModel) -> bool:
        """Check before the first use in this process: files without a seal are hashed, which may take as long as reading them."""
        return await asyncio.get_running_loop().run_in_executor(self._downloads, contained, lambda: self._is_right(local))

    def forget(self, model_id: str) -> None:
        """Check the disk again for this model next time."""
        for identity in [key for key, local in self._known.items() if local.model_id == model_id]:
            del self._known[identity]

    def arriving(self) -> dict[str, Progress]:
        """Running downloads by model id."""
        return {arrival.progress.model_id: arrival.progress for arrival in self._arriving.values()}

    def close(self) -> None:
        for arrival in self._arriving.values():
            arrival.cancel.set()
        self._downloads.shutdown(wait=False, cancel_futures=True)
        self._looks.shutdown(wait=False, cancel_futures=True)

    async def _arrive(self, want: ModelWant, listener: Listener | None) -> LocalModel:
        identity = _identity(want)
        arrival = self._arriving.get(identity)
        if arrival is None or arrival.cancel.is_set():
            arrival = self._start(identity, want)
        assert arrival.task is not None
        stop_listening = heard_on_the_loop(arrival.progress, listener)
        arrival.waiters += 1
        try:
            # Shielded: a waiter that gives up must not end the download for the others.
            return await asyncio.shield(arrival.task)
        finally:
            stop_listening()
            arrival.waiters -= 1
            if not arrival.waiters:
                arrival.cancel.set()

    def _start(self, identity: tuple[str, ...], want: ModelWant) -> _Arrival:
        arrival = _Arrival(want.model_id)
        self._arriving[identity] = arrival
        loop = asyncio.get_running_loop()

        def work() -> LocalModel:
            found = self._source.present(want)
            if found is not None:
                return found
            began_s = time.monotonic()
            found = self._source.fetch(want, arrival.progress, arrival.cancel)
            if self._measurements is not None and found.fetched_bytes >= MEASURED_ABOVE_BYTES:
                self._measurements.note_rate(NET, round(found.fetched_bytes / (time.monotonic() - began_s)))
            return found

        def ended(task: "asyncio.Future[LocalModel]") -> None:
            if self._arriving.get(identity) is arrival:
                del self._arriving[identity]
            if not task.cancelled():
                task.exception()  # mark it as seen, even when every waiter has left

        arrival.task = loop.run_in_executor(self._downloads, contained, work)
        arrival.task.add_done_callback(ended)
        return arrival


def heard_on_the_loop(progress: Progress, listener: Listener | None) -> Callable[[], None]:
    """Listen to a progress in the running loop's thread; call the returned function to stop."""
    if listener is None:
        return lambda: None
    loop, hear = asyncio.get_running_loop(), listener

    def pass_on(now: ModelProgress) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(hear, now)

    return progress.listen(pass_on)


def _identity(want: ModelWant) -> tuple[str, ...]:
    return (want.key, want.model_id, ",".join(want.spec.dtypes), want.listing.digest if want.listing else "", *want.takers)
