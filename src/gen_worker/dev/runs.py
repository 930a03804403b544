"""Keeps runs in memory: status, events, cancel. Bounded in number and in bytes."""

import asyncio
import random
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator

import msgspec

from gen_worker import events
from gen_worker.authoring.assets import Asset
from gen_worker.contract.run import Usage
from gen_worker.contract.runner import RunnerStatus
from gen_worker.errors import FieldError, ResourceError
from gen_worker.events import RunEvent
from gen_worker.execution.admission import Admission, Refusal
from gen_worker.execution.cancellation import CancelToken
from gen_worker.http.event_log import EventLog
from gen_worker.outcome import Outcome

MAX_FINISHED_RUNS = 256
MAX_KEPT_BYTES = 64 << 20
MAX_RUN_EVENTS = 10_000
MAX_RUN_BYTES = 8 << 20
MAX_QUEUED = 1000
KEEP_KEYS_S = 24 * 3600

# Seeded by the system once; asking it for each id costs as much as an echo run.
_random = random.Random(random.SystemRandom().getrandbits(256))  # noqa: S311 - ids, not secrets


class EarlyRecord(msgspec.Struct, frozen=True):
    """What the author's thread has told a run's caller before the loop heard of it."""

    events_json: bytes
    finished_s: float


class DevRun:
    """One run and everything kept about it. It is also the run's event sink."""

    def __init__(self, run_id: str, function: str) -> None:
        self.run_id = run_id
        self.function = function
        self.status: RunnerStatus = "queued"
        self.created_s = time.time()
        self.started_s: float | None = None
        self.finished_s: float | None = None
        self.is_session = False  # a realtime session may say more than can be kept; its oldest events are dropped
        self.streamed = False  # whether its function yields outputs one by one
        self.progress: msgspec.Raw | None = None
        self.usage: Usage | None = None
        self.outcome: Outcome | None = None
        self.files: list[Asset] = []
        self.warnings: tuple[FieldError, ...] = ()
        self.token = CancelToken()
        self.log = EventLog(run_id, max_events=MAX_RUN_EVENTS, max_bytes=MAX_RUN_BYTES)
        self.key = ""  # the Idempotency-Key of its request, and a fingerprint of that request
        self.fingerprint = b""
        self.early: EarlyRecord | None = None  # what its thread has already answered
        self._waiting: list[asyncio.Future[None]] = []

    @property
    def finished(self) -> bool:
        return self.outcome is not None

    @property
    def size_bytes(self) -> int:
        """The memory that this run takes, in bytes."""
        return self.log.size_bytes + (len(self.outcome.output) if self.outcome else 0)

    @property
    def ready(self) -> bool:
        return self.log.ready

    def emit(self, event: RunEvent) -> None:
        self.emit_all([event])

    def emit_all(self, batch: list[RunEvent]) -> None:
        """Append events. A full log drops its oldest if someone reads along; a run that nobody reads is stopped."""
        for event in batch:
            if event.event_type == events.PROGRESS and not self.log.sealed:
                self.progress = event.payload
            elif event.event_type == events.METRICS_RUN and event.payload.output_tokens is not None:
                self.usage = Usage(event.payload.input_tokens, event.payload.output_tokens)
            elif event.event_type == events.WARNING:
                self.warnings += event.payload.warnings
        if self.log.append(batch) and not self.log.readers and not self.is_session:
            self.token.cancel(
                ResourceError(
                    f"the function produced more than {MAX_RUN_EVENTS} events or {MAX_RUN_BYTES >> 20} MiB that nobody was reading; "
                    "read along with Accept: text/event-stream"
                )
            )

    def on_ready(self, callback: Callable[[], None]) -> None:
        self.log.on_ready(callback)

    def add_file(self, asset: Asset) -> None:
        """The function saved a file. Files saved after the run's end do not belong to the run."""
        if not self.finished and self.early is None:
            self.files.append(asset)

    def start(self) -> None:
        self.status = "running"
        self.started_s = time.time()

    def finish(self, outcome: Outcome) -> None:
        """The run is over; neither it nor its log changes any more."""
        early = self.early
        self.outcome = _showable(outcome)
        self.finished_s = time.time() if early is None else early.finished_s
        self.status = "succeeded" if outcome.success else "canceled" if outcome.error_type == "canceled" else "failed"
        self.log.seal(None if early is None else early.events_json)
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)

    async def wait(self, timeout_s: float | None) -> bool:
        """Wait for the end; False when it did not come in time."""
        if self.finished:
            return True
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        try:
            if timeout_s is None:
                await waiter
                return True
            async with asyncio.timeout(timeout_s):
                await waiter
        except TimeoutError:
            return False
        finally:
            if waiter in self._waiting:
                self._waiting.remove(waiter)
        return True


class RunBook:
    """All known runs, newest last; gives slots to runs in order of arrival."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._runs: OrderedDict[str, DevRun] = OrderedDict()
        self._by_key: dict[str, DevRun] = {}
        self._finished: deque[DevRun] = deque()
        self._kept_bytes = 0
        self._waiting: dict[asyncio.Future[None], tuple[str, int | None]] = {}
        admission.when_freed(self._serve_waiting)

    @property
    def active(self) -> int:
        return self._admission.active

    @property
    def queued(self) -> int:
        """Runs that wait for a slot. A run that stops waiting, for whatever reason, does not count."""
        return len(self._waiting)

    def create(self, function: str, run_id: str | None) -> DevRun | None:
        """A new run; None when a run with that id is still going on. A finished one with that id is replaced."""
        run_id = run_id or f"{_random.getrandbits(96):024x}"
        before = self._runs.get(run_id)
        if before is not None:
            if not before.finished:
                return None
            self.forget(before)
        run = self._runs[run_id] = DevRun(run_id, function)
        return run

    def forget(self, run: DevRun) -> None:
        """Free its id and its key."""
        if self._runs.get(run.run_id) is run:
            del self._runs[run.run_id]
        if run.key and self._by_key.get(run.key) is run:
            del self._by_key[run.key]

    def keep_key(self, run: DevRun, key: str, fingerprint: bytes) -> None:
        """Remember which run an Idempotency-Key started: as long as the run is kept, at most a day."""
        run.key, run.fingerprint = key, fingerprint
        self._by_key[key] = run

    def find_key(self, key: str) -> DevRun | None:
        run = self._by_key.get(key)
        return run if run is not None and time.time() - run.created_s < KEEP_KEYS_S else None

    def get(self, run_id: str) -> DevRun | None:
        return self._runs.get(run_id)

    def newest_first(self) -> Iterator[DevRun]:
        return reversed(self._runs.values())

    def admit_now(self, function: str, limit: int | None) -> bool:
        """Take a slot if one is free and nobody waits for it."""
        return not self._waiting and self._admission.take(function, limit) is None

    def take(self, function: str, limit: int | None) -> Refusal | None:
        """Take a slot now, before those who wait for one; otherwise the reason why there is none."""
        return self._admission.take(function, limit)

    async def admit(self, run: DevRun, limit: int | None) -> None:
        """Wait for a slot. Raises the reason if the run has to stop first; then it has no slot and no longer waits."""
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        run.token.on_cancel(lambda reason: None if place.done() else place.set_exception(reason))
        self._waiting[place] = (run.function, limit)
        try:
            self._serve_waiting()
            await place
        except BaseException:
            if place.done() and not place.cancelled() and place.exception() is None:
                self.leave(run.function)  # it got a slot at the moment when it was stopped
            raise
        finally:
            self._waiting.pop(place, None)

    def leave(self, function: str) -> None:
        """Give a slot back, to the run that has waited longest and may have it."""
        self._admission.give(function)

    def finished(self, run: DevRun) -> None:
        """Keep a finished run for a while, and forget the oldest beyond the limits."""
        self._finished.append(run)
        self._kept_bytes += run.size_bytes
        while len(self._finished) > MAX_FINISHED_RUNS or (self._kept_bytes > MAX_KEPT_BYTES and len(self._finished) > 1):
            oldest = self._finished.popleft()
            self._kept_bytes -= oldest.size_bytes
            self.forget(oldest)

    def _serve_waiting(self) -> None:
        for place, (function, limit) in list(self._waiting.items()):
            if not place.done() and self._admission.take(function, limit) is None:
                place.set_result(None)
                del self._waiting[place]


def _showable(outcome: Outcome) -> Outcome:
    """The outcome with texts that JSON can represent: otherwise one run would break every list that contains it."""
    if outcome.success:
        return outcome
    try:
        msgspec.json.encode(outcome)
    except (ValueError, TypeError) as exc:
        error = f"the run failed, and its error cannot be shown: {str(exc)!a}"
        return msgspec.structs.replace(outcome, safe_message=error, error_message=ascii(outcome.error_message), errors=())
    return outcome
