"""Deliberate bugs of typical kinds, kept as code: each removes one guard. The laws must detect every one of them."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import msgspec

from gen_orchestrator.api import runs as api_runs
from gen_orchestrator.api import streams
from gen_orchestrator.api.streams import RunStreams
from gen_orchestrator.domain import losses, runs
from gen_orchestrator.domain.losses import Loss, Lost
from gen_orchestrator.domain.retries import Again
from gen_orchestrator.domain.runs import Ending, Run, RunError, RunState
from gen_orchestrator.scheduling import placing, pool, waiting_runs
from gen_orchestrator.scheduling.dispatcher import Dispatcher
from gen_orchestrator.scheduling.feed import Feed
from gen_orchestrator.scheduling.gateway import Gateway
from gen_orchestrator.scheduling.intake import Intake, Submitted
from gen_orchestrator.scheduling.open_run import Phase
from gen_orchestrator.scheduling.recorder import Recorder
from gen_orchestrator.scheduling.waiting_runs import WaitingRuns
from gen_orchestrator.store.line import Line
from gen_orchestrator.store.memory import MemoryStore
from gen_worker.wire.holds import AckGate, Hold
from gen_worker.wire.messages import Event, RunResult
from gen_worker.wire.scheduler_session import RunEnded, SchedulerSession

Patch = Callable[[], contextlib.AbstractContextManager[Any]]


def _replace(owner: Any, name: str, new: Any) -> Patch:
    return lambda: mock.patch.object(owner, name, new)


def _finish_any_attempt(run: Run, *, attempt: int, ending: Ending) -> Run | None:
    return _FINISH(run, attempt=run.attempt, ending=ending)


def _take_any_result(self: Dispatcher, worker: Any, result: Any, hold: Hold) -> None:
    open_run = self.open.get(result.run_id)
    if open_run is not None and open_run.phase is Phase.LEASED and open_run.worker is not None:
        worker = open_run.worker
    _ON_RESULT(self, worker, result, hold)


def _end_any_run(self: SchedulerSession, message: Any) -> Any:
    if isinstance(message, RunResult):
        return [RunEnded(msgspec.structs.replace(message, attempt=0))]
    return _RECEIVE(self, message)


def _forget_the_attempt(self: SchedulerSession, message: Any) -> Any:
    return _RECEIVE(self, msgspec.structs.replace(message, attempt=0) if isinstance(message, Event | RunResult) else message)


def _finish_twice(run: Run, *, attempt: int, ending: Ending) -> Run | None:
    open_again = msgspec.structs.replace(run, state=RunState.LEASED) if run.is_final else run
    return _FINISH(open_again, attempt=attempt, ending=ending)


def _finish_in_spite_of_a_cancel(run: Run, *, attempt: int, ending: Ending) -> Run | None:
    return _FINISH(msgspec.structs.replace(run, cancel_requested=False), attempt=attempt, ending=ending)


def _requeue_from_scratch(run: Run, *, attempt: int, not_before: float, **counts: Any) -> Run | None:
    moved = _REQUEUE(run, attempt=attempt, not_before=not_before, **counts)
    return msgspec.structs.replace(moved, attempt=max(0, moved.attempt - 1)) if moved is not None else None


def _count_alone(run: Run, worker_id: str, loss: Loss) -> Lost | RunError:
    return RunError(error_type="fatal", code="worker_lost", message="twice") if run.lost_workers else Lost(0)


def _acknowledge_at_once(self: AckGate, seq: int) -> Hold:
    hold = _OPEN(self, seq)
    self.confirmed_seq = seq
    self._on_advance()
    return hold


def _accept_without_the_key(self: MemoryStore, run: Run) -> Any:
    return _ACCEPT(self, msgspec.structs.replace(run, idempotency_key=""))


def _nothing(*arguments: Any, **named: Any) -> None:
    return None


def _forget_requeue(self: Recorder, open_run: Any, again: Again, not_before: float, hold: Hold | None) -> None:
    open_run.phase = Phase.ENDING


def _number_again(self: Feed, attempt: int, stored: Any) -> None:
    self.dropped = True


def _forget_source(self: Feed, attempt: int, stored: Any) -> None:
    _RESUME(self, attempt, stored)
    self.source = ("", 0)


def _drop_what_failed(self: Line, batch: Any, results: Any) -> Any:
    calls = _SETTLE(self, batch, results)
    self._waiting = [entry for entry in self._waiting if entry not in batch]
    return calls


def _let_others_overtake(self: Line, batch: Any, results: Any) -> Any:
    calls = _SETTLE(self, batch, results)
    again = [entry for entry in self._waiting if entry in batch]
    self._waiting = [entry for entry in self._waiting if entry not in batch] + again[::-1]
    return calls


def _answer_before_the_commit(self: Intake, open_run: Any, accepted: Any) -> None:
    _ACCEPT_RUN(self, open_run, accepted)
    accepted.tell(Submitted(open_run, open_run.run, True))


def _resend_nothing(self: SchedulerSession, registration: Any) -> None:
    return None


def _any_epoch(self: MemoryStore, epoch: int, ops: Any) -> Any:
    return [self._apply(op) for op in ops]


_RECEIVE = SchedulerSession._receive
_FINISH, _REQUEUE, _OPEN, _ACCEPT = runs.finish, runs.requeue, AckGate.open, MemoryStore._accept
_SETTLE = Line.settle
_ON_RESULT = Dispatcher.on_result
_RESUME, _ACCEPT_RUN = Feed.resume, Intake.accept


@contextlib.contextmanager
def _both(*patches: Patch) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for patch in patches:
            stack.enter_context(patch())
        yield


PLANTED: dict[str, Patch] = {
    "the result of any attempt is recorded": lambda: _both(
        _replace(runs, "finish", _finish_any_attempt),
        _replace(Dispatcher, "on_result", _take_any_result),
        _replace(SchedulerSession, "_receive", _end_any_run),
    ),
    "an earlier attempt on the same worker passes for the present one": _replace(SchedulerSession, "_receive", _forget_the_attempt),
    "a final state may be finished again": _replace(runs, "finish", _finish_twice),
    "a success overtakes a recorded cancel": _replace(runs, "finish", _finish_in_spite_of_a_cancel),
    "attempts are counted from scratch after a requeue": _replace(runs, "requeue", _requeue_from_scratch),
    "messages are acknowledged before they are written": _replace(AckGate, "open", _acknowledge_at_once),
    "idempotency keys are not kept": _replace(MemoryStore, "_accept", _accept_without_the_key),
    "runs of a lost worker stay with it": _replace(Dispatcher, "lost", _nothing),
    "the lease of a silent worker never ends": _replace(Gateway, "sweep", lambda self: __import__("asyncio").sleep(1e9)),
    "a run that goes back is forgotten": _replace(Recorder, "_requeue", _forget_requeue),
    "events are numbered from 1 by a new leader": _replace(Feed, "resume", _number_again),
    "what a worker says again is taken twice": _replace(Feed, "resume", _forget_source),
    "what failed to be written is not tried again": _replace(Line, "settle", _drop_what_failed),
    "what failed to be written is overtaken": _replace(Line, "settle", _let_others_overtake),
    "a run is answered for before its commit": _replace(Intake, "accept", _answer_before_the_commit),
    "lost commands are not sent again": lambda: _both(
        _replace(SchedulerSession, "_send_again", _resend_nothing), _replace(Dispatcher, "dropped", _nothing)
    ),
    "the front forgets the key of a request": _replace(api_runs, "idempotency_key", lambda request: ""),
    "a stream begins anew for a reader who resumes": _replace(streams, "parse_event_id", lambda text: (0, 0)),
    "a stream leaves out what only the store has": _replace(RunStreams, "_stored", lambda self, run_id: []),
    "a retry waits for an hour on the wall": _replace(waiting_runs, "MAX_DELAY_S", 1e9),
    "retries are never due": _replace(WaitingRuns, "_due", _nothing),
    "a lost worker's run is given up at once": _replace(losses, "MAX_LOST_WORKERS", 0),
    "a run is given up for what its neighbours did": _replace(losses, "after_loss", _count_alone),
    "a run that must be alone is given a worker with others": _replace(placing, "is_kept_apart", lambda run: False),
    "a run that must be alone gets company": _replace(pool, "is_kept_apart", lambda run: False),
}
