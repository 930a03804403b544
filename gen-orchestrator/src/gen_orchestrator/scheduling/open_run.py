"""An open run in the leader's memory: its stored state, and state that is only in memory."""

import asyncio
from enum import Enum
from typing import TYPE_CHECKING

from gen_orchestrator.domain.receipts import NOTHING, Usage
from gen_orchestrator.domain.runs import Ending, Run, RunError, RunState
from gen_orchestrator.scheduling.feed import Feed
from gen_orchestrator.scheduling.live_session import LiveSession
from gen_worker.wire.messages import OpenRealtime, RunCommand

if TYPE_CHECKING:
    from gen_orchestrator.scheduling.intake import Acceptance
    from gen_orchestrator.scheduling.lane import Lane
    from gen_orchestrator.scheduling.pool import Worker
    from gen_worker.wire.holds import Hold


class Phase(Enum):
    """The run's current phase. The head of `dispatcher` says what moves it."""

    WAITING = "waiting"  # in its lane's queue
    DELAYED = "delayed"  # a retry that is not due
    LEASING = "leasing"  # its lease is being written
    LEASED = "leased"  # the worker has it
    ENDING = "ending"  # its end, or its return to the queue, is being written
    OVER = "over"


class OpenRun:
    """One run. Used on the loop only."""

    __slots__ = (
        "_done",
        "accepted",
        "accepted_s",
        "began_s",
        "cancel_requested",
        "ends_as",
        "expected_end_s",
        "expires_s",
        "failed_by",
        "feed",
        "first_output_at",
        "flushing",
        "gapped",
        "holds",
        "is_shadow",
        "lane",
        "listed_s",
        "metrics",
        "phase",
        "run",
        "session",
        "started",
        "started_s",
        "stuck",
        "timer",
        "used",
        "volatile",
        "waits_since_s",
        "warnings",
        "worker",
    )

    def __init__(self, run: Run, lane: "Lane") -> None:
        self.run = run
        self.lane = lane
        self.phase = Phase.WAITING
        self.session = LiveSession(run.id) if lane.settings.is_session else None  # for a websocket handler: its frames in both directions
        self.accepted: Acceptance | None = None  # until its row is committed
        self.started = False  # whether the worker has begun this attempt
        self.cancel_requested = run.cancel_requested
        self.ends_as: Ending | None = None  # decided here, whatever its worker says
        self.worker: Worker | None = None
        self.accepted_s = 0.0  # monotonic: when it was accepted, and when it is given up unless it has begun (0: never)
        self.expires_s = 0.0
        self.began_s = 0.0  # monotonic: when this attempt was given to its worker
        self.listed_s = 0.0  # when its worker last reported that it has this run
        self.expected_end_s = 0.0
        self.started_s = 0.0  # when its worker reported that it began this attempt
        self.waits_since_s = 0.0  # when it last entered its queue
        self.used = NOTHING  # used by attempts and not stored yet
        self.metrics = b""  # of this attempt
        self.failed_by: RunError | None = None  # why an earlier attempt failed, as far as this process has seen it
        self.stuck = b""  # the worker's last report of why the run hangs
        self.gapped = False  # its worker may have lost some of its output, so its result leads to another attempt
        self.volatile = False  # kept in memory only, and stored when it is over (cozy.toml: durable = false)
        self.is_shadow = False  # a shadow run: never stored, shown to nobody, gives way to every other run
        self.warnings = b""  # JSON: the parts of the payload that the function ignored
        self.first_output_at = 0.0  # unix seconds; 0 before the first output
        self.flushing = False  # events are being written to the store
        self.holds: list[Hold] = []  # acknowledgements that wait for these events
        self.feed = Feed()
        self.timer: asyncio.TimerHandle | None = None
        self._done: list[asyncio.Future[bool]] = []

    @property
    def id(self) -> str:
        return self.run.id

    @property
    def function(self) -> str:
        return self.run.function

    @property
    def is_over(self) -> bool:
        return self.phase is Phase.OVER

    @property
    def is_sent(self) -> bool:
        """Whether its worker may have begun it."""
        return self.phase is Phase.LEASED

    @property
    def status(self) -> str:
        """The public word."""
        if self.phase is Phase.OVER:
            return str(self.run.state)
        if self.run.state is RunState.LEASED:  # also while its end is being written and its worker already has others
            return "running" if self.started else "starting"
        return "queued"

    def command(self, file_base_url: str, file_token: str) -> RunCommand:
        """The command for its worker, with the file API for the files of this attempt."""
        run = self.run
        return RunCommand(
            run_id=run.id,
            function=run.function,
            payload=run.payload,
            required_models=self.lane.need(run.payload).models,
            timeout_ms=run.timeout_ms,
            attempt=run.attempt,
            owner=run.owner,
            invoker_id=run.invoker_id,
            file_base_url=file_base_url,
            file_token=file_token,
            traceparent=run.traceparent,
        )

    def opening(self, file_base_url: str, file_token: str) -> OpenRealtime:
        """The command that opens a realtime session."""
        run = self.run
        return OpenRealtime(
            session_id=run.id,
            function=run.function,
            required_models=self.lane.need(run.payload).models,
            owner=run.owner,
            invoker_id=run.invoker_id,
            timeout_ms=run.timeout_ms,
            file_base_url=file_base_url,
            file_token=file_token,
        )

    def take_used(self) -> Usage:
        """The usage still to be stored; from now on it counts as stored."""
        used, self.used = self.used, NOTHING
        return used

    async def wait(self, timeout_s: float | None) -> bool:
        """Wait until the run is over; False when it does not end in time."""
        if self.phase is Phase.OVER:
            return True
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[bool] = loop.create_future()
        self._done.append(waiter)
        # Only a timer: `asyncio.timeout` takes a twentieth of the time of an echo run.
        timer = None if timeout_s is None else loop.call_later(timeout_s, _answer, waiter, False)
        try:
            return await waiter
        finally:
            if timer is not None:
                timer.cancel()
            if waiter in self._done:
                self._done.remove(waiter)

    def let_go(self) -> None:
        """This program ends but the run does not: waiting callers are told that it continues."""
        self.feed.let_go()
        waiters, self._done = self._done, []
        for waiter in waiters:
            _answer(waiter, False)

    def end(self, run: Run) -> None:
        """The end is stored: tell everyone who waits."""
        self.run = run
        self.phase = Phase.OVER
        self.set_timer(None)
        self.feed.seal()
        waiters, self._done = self._done, []
        for waiter in waiters:
            _answer(waiter, True)

    def set_timer(self, timer: asyncio.TimerHandle | None) -> None:
        """A run's single timer: for its retry, its expiry, or its time limit."""
        if self.timer is not None:
            self.timer.cancel()
        self.timer = timer


def _answer(waiter: "asyncio.Future[bool]", is_over: bool) -> None:
    if not waiter.done():
        waiter.set_result(is_over)
