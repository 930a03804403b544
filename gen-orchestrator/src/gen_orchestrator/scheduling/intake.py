"""Accepts runs. The caller gets its answer after the commit, and equal requests for one run give one run.

put Accept --written--> accepted: the caller is told
           --refused--> the key or id belongs to an existing run: the caller gets that one
           --nothing was written--> the caller is told why; the run never existed
           --unknown--> the caller is told that; the run stays in line until its state is known, here and in the store
"""

import asyncio
from typing import Protocol

import msgspec

from gen_orchestrator.domain.admission import Refusal
from gen_orchestrator.domain.runs import Run
from gen_orchestrator.scheduling.lane import Lane
from gen_orchestrator.scheduling.open_run import OpenRun
from gen_orchestrator.scheduling.open_runs import OpenRuns
from gen_orchestrator.store.base import StoreError, StoreUnavailableError
from gen_orchestrator.store.ops import Accept, Result
from gen_orchestrator.store.writer import Writer

STALLED_S = 5.0  # requests wait this long for a store that accepts nothing; after that they are refused at once


class AdmissionError(Exception):
    """The queue is full."""

    def __init__(self, refused: Refusal) -> None:
        super().__init__(refused.detail)
        self.refusal = refused


class ReleaseGoneError(Exception):
    """The release of this run is deleted, or is being deleted; the run was not accepted."""


class Submitted(msgspec.Struct, frozen=True):
    """`open` is the open run. If an earlier request made it and it is over, `run` is its final state."""

    open: OpenRun | None
    run: Run
    is_new: bool


class Acceptance:
    """The callers that wait for a run's acceptance. Each has a future of its own, so that one that leaves does not
    cancel the others' wait.
    """

    __slots__ = ("_failed", "_waiting")

    def __init__(self) -> None:
        self._waiting: list[asyncio.Future[Submitted]] = []
        self._failed: StoreError | None = None

    def wait(self) -> "asyncio.Future[Submitted]":
        """Wait until the run is accepted; `StoreError` if it is not, or if that is unknown."""
        waiting: asyncio.Future[Submitted] = asyncio.get_running_loop().create_future()
        if self._failed is not None:
            waiting.set_exception(self._failed)
        self._waiting.append(waiting)
        return waiting

    def tell(self, submitted: Submitted) -> None:
        for waiting in self._take():
            waiting.set_result(submitted)

    def fail(self, exc: StoreError) -> None:
        self._failed = exc
        for waiting in self._take():
            waiting.set_exception(exc)
            waiting.exception()  # the caller may have left

    def _take(self) -> "list[asyncio.Future[Submitted]]":
        waiting, self._waiting = self._waiting, []
        return [each for each in waiting if not each.done()]


class Owner(Protocol):
    """What acceptance needs from the dispatcher."""

    open: OpenRuns

    def withdraw(self, open_run: OpenRun) -> None:
        """Forget a run that was not accepted."""
        ...

    def take_over(self, there: Run, lane: Lane) -> OpenRun:
        """Continue an open run that only the store knew."""
        ...


class Intake:
    """Stores acceptances, and answers the callers."""

    def __init__(self, writer: Writer, owner: Owner) -> None:
        self._writer = writer
        self._owner = owner

    def check(self) -> None:
        """Raise a `StoreError` when the store has written nothing for a while: more runs would only wait, and fill the
        memory.
        """
        trouble = self._writer.trouble(STALLED_S)
        if trouble is not None:
            raise trouble

    def accept(self, open_run: OpenRun, accepted: Acceptance) -> None:
        """Store the run. If that certainly failed, the caller is told, and the run never existed. If the store did not
        answer, the run may be stored: the caller is told so, and the run stays in line, the same one here and in the
        store.
        """

        def trouble(exc: StoreError) -> None:
            accepted.fail(exc)
            if not (isinstance(exc, StoreUnavailableError) and exc.unknown):
                open_run.accepted = None
                self._owner.withdraw(open_run)

        def written(result: Result) -> None:
            self._accepted(open_run, result, accepted)

        self._writer.put(Accept(open_run.run), written, trouble, optional=True)

    def _accepted(self, open_run: OpenRun, result: Result, accepted: Acceptance) -> None:
        open_run.accepted = None
        there: Run | None = getattr(result, "run", None)
        if there is None or (there.id == open_run.id and there.fingerprint == open_run.run.fingerprint and not there.is_final):
            accepted.tell(Submitted(open_run, open_run.run, True))
            return
        self._owner.withdraw(open_run)
        if not there.is_final and there.id not in self._owner.open:
            accepted.tell(Submitted(self._owner.take_over(there, open_run.lane), there, False))
        else:
            accepted.tell(Submitted(self._owner.open.get(there.id), there, False))
