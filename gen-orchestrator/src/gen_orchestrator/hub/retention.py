"""Deletes old data: first a finished run's events and idempotency key, later the run itself.

    finished ----trim_s----> events and key gone, the run stays ----keep_s----> files gone, then the run

Files are deleted first: if this process dies in between, the run still exists and its files are deleted again. Runs are deleted in
batches of a few hundred, one transaction each, with pauses for other writers: deletion takes at most a fifth of the store's time.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sized
from typing import Annotated

import msgspec

from gen_orchestrator.domain.pruning import MAX_KEEP
from gen_orchestrator.hub.files import RunFiles
from gen_orchestrator.hub.model_records import Collected
from gen_orchestrator.hub.uploads import UploadLimits
from gen_orchestrator.store.base import RunStore, StoreError
from gen_worker.clock import Clock, SteadyCalendar
from gen_worker.log import Log
from gen_worker.settings.reading import Range

BATCH = 200
ROUND_S = 60.0
COLLECT_S = 3600.0
SHARE = 5  # a batch that took a second is followed by a pause of four seconds
YEAR_S = 366 * 24 * 3600


class RetentionSettings(msgspec.Struct, frozen=True, kw_only=True, rename="upper"):
    """Seconds after the end of a run; its details (events, idempotency key) are deleted no later than the run. Bytes of
    each worker's log. Seconds after which a caller's upload expires, bytes of one upload, and bytes of all uploads of
    one owner. Bytes that one attempt of a run may save. Bytes of the events of one run; 0: no limit. How many releases
    of each endpoint stay besides those in use; 0: all. Seconds after which a realtime session without a message ends;
    0: never. `gen_orchestrator_blobs` is `s3://bucket/prefix`, or empty for the data folder.
    """

    gen_orchestrator_keep_runs_s: Annotated[float, Range(60, YEAR_S, "seconds")] = 7 * 24 * 3600.0
    gen_orchestrator_keep_details_s: Annotated[float, Range(60, YEAR_S, "seconds")] = 24 * 3600.0
    gen_orchestrator_worker_log_bytes: Annotated[int, Range(1 << 16, 1 << 40, "bytes")] = 64 << 20
    gen_orchestrator_keep_uploads_s: Annotated[float, Range(60, 10 * YEAR_S, "seconds")] = 30 * 24 * 3600.0
    gen_orchestrator_upload_bytes: Annotated[int, Range(1, 1 << 50, "bytes")] = 16 << 30
    gen_orchestrator_owner_bytes: Annotated[int, Range(1, 1 << 60, "bytes")] = 100 << 30
    gen_orchestrator_run_bytes: Annotated[int, Range(1, 1 << 50, "bytes")] = 256 << 30
    gen_orchestrator_run_event_bytes: Annotated[int, Range(0, 1 << 40, "bytes")] = 64 << 20
    gen_orchestrator_keep_releases: Annotated[int, Range(0, MAX_KEEP, "releases")] = 0
    gen_orchestrator_session_idle_s: Annotated[float, Range(0, YEAR_S, "seconds")] = 600.0
    gen_orchestrator_blobs: str = ""


def upload_limits(settings: RetentionSettings) -> UploadLimits:
    """The limits for callers' files in these settings."""
    return UploadLimits(
        file_bytes=settings.gen_orchestrator_upload_bytes,
        owner_bytes=settings.gen_orchestrator_owner_bytes,
        keep_s=settings.gen_orchestrator_keep_uploads_s,
    )


class Retention:
    """One for each leader. `run` continues until it is cancelled. `sweep_uploads` deletes expired files of callers and
    returns their number. `collect_models` removes unused model blobs and returns their number and bytes.
    `prune_releases` deletes all but this many releases of each endpoint and returns them. `forget_halves` deletes
    half-written files whose writers are dead.
    """

    def __init__(
        self,
        settings: RetentionSettings,
        store: RunStore,
        files: RunFiles,
        log: Log,
        clock: Clock,
        sweep_uploads: Callable[[], int] = lambda: 0,
        collect_models: Callable[[], Collected] = lambda: Collected(0, 0),
        prune_releases: Callable[[int], Awaitable[Sized]] | None = None,
        forget_halves: Callable[[], object] = lambda: None,
    ) -> None:
        self._settings = settings
        self._store = store
        self._files = files
        self._log = log
        self._clock = clock
        self._calendar = SteadyCalendar(clock)
        self._sweep_uploads = sweep_uploads
        self._collect_models = collect_models
        self._prune_releases = prune_releases
        self._forget_halves = forget_halves
        self._collected_s = clock.now_s()
        self._is_first = True

    async def run(self, pause_s: float = ROUND_S) -> None:
        """Check again and again."""
        while True:
            await self.look()
            await asyncio.sleep(pause_s)

    async def look(self) -> None:
        """Do everything that is due now. A failure is logged, stops nothing else, and is tried again the next time."""
        try:
            if expired := await asyncio.to_thread(self._sweep_uploads):
                self._log.info("retention.uploads", expired=expired)
        except OSError as exc:
            self._log.warning("retention.uploads_kept", error=str(exc))
        await self._models()
        await self._releases()
        try:
            trimmed, forgotten = await self.round()
            if trimmed or forgotten:
                self._log.info("retention.round", trimmed=trimmed, forgotten=forgotten)
        except Exception as exc:  # noqa: BLE001 - the boundary of the task: the next round tries again
            self._log.warning("retention.failed", error=str(exc) if isinstance(exc, StoreError) else repr(exc))

    async def _models(self) -> None:
        """Once an hour, the first time an hour after the start, because it reads the whole store of models. Half-written files
        also at the start, where a kill may be the reason for it.
        """
        is_due = self._clock.now_s() - self._collected_s >= COLLECT_S
        if self._is_first or is_due:
            self._is_first = False
            await asyncio.to_thread(self._forget_halves)
        if not is_due:
            return
        self._collected_s = self._clock.now_s()
        try:
            found = await asyncio.to_thread(self._collect_models)
            if found.blobs:
                self._log.info("retention.models", blobs=found.blobs, freed_bytes=found.freed_bytes)
        except OSError as exc:
            self._log.warning("retention.models_kept", error=str(exc))

    async def _releases(self) -> None:
        keep = self._settings.gen_orchestrator_keep_releases
        if not keep or self._prune_releases is None:
            return
        try:
            if deleted := await self._prune_releases(keep):
                self._log.info("retention.releases", deleted=len(deleted))
        except Exception as exc:  # noqa: BLE001 - the boundary, as of a round
            self._log.warning("retention.releases_kept", error=str(exc) if isinstance(exc, StoreError) else repr(exc))

    async def round(self) -> tuple[int, int]:
        """Do what is due now; returns how many runs were trimmed, and how many deleted."""
        now_s, settings = self._calendar.earliest_s(), self._settings
        trimmed = await self._batches(lambda: self._store.trim(now_s - settings.gen_orchestrator_keep_details_s, BATCH))
        forgotten = await self._batches(lambda: self._forget(now_s - settings.gen_orchestrator_keep_runs_s))
        return trimmed, forgotten

    def _forget(self, finished_before: float) -> int:
        """A run whose files cannot be deleted now is kept, and does not block others."""
        gone = []
        for run in self._store.old_runs(finished_before, BATCH):
            try:
                self._files.remove(run.owner, run.run_id)
            except OSError as exc:
                self._log.warning("retention.files_kept", run_id=run.run_id, error=str(exc))
            else:
                gone.append(run.run_id)
        return self._store.forget(gone)

    async def _batches(self, batch: Callable[[], int]) -> int:
        total = 0
        while True:
            began_s = time.monotonic()
            count = await asyncio.to_thread(batch)
            total += count
            if count < BATCH:
                return total
            await asyncio.sleep((time.monotonic() - began_s) * (SHARE - 1))
