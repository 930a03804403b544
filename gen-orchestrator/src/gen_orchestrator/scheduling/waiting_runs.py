"""Runs without a worker: queued in their lane, or delayed until they are due.

    put --due--------------------> WAITING --(`Placing` gives it to a worker)--> LEASING
        --not due yet------------> DELAYED --due--> WAITING
    WAITING --its start deadline has passed, and it never ran--> ENDING, as expired

The store has times of the wall clock, which may be set, or differ from the next leader's clock. So this leader converts
a run's times once, when it first sees the run (`see`). From then on the monotonic clock counts, and no retry waits
longer than the longest pause between retries.
"""

import asyncio
from collections.abc import Callable

from gen_orchestrator.domain.retries import MAX_DELAY_S
from gen_orchestrator.scheduling import endings
from gen_orchestrator.scheduling.lane import Lane
from gen_orchestrator.scheduling.lanes import Lanes
from gen_orchestrator.scheduling.open_run import OpenRun, Phase
from gen_orchestrator.scheduling.recorder import Recorder
from gen_worker.clock import Clock


class WaitingRuns:
    """One for each leader. `pump` gives the lane's next runs to workers; it is called when a delayed run is due."""

    def __init__(self, lanes: Lanes, recorder: Recorder, clock: Clock, pump: Callable[[Lane], None]) -> None:
        self._lanes = lanes
        self._recorder = recorder
        self._clock = clock
        self._pump = pump
        self._loop = asyncio.get_running_loop()

    def put(self, open_run: OpenRun, *, front: bool = False) -> None:
        """Add a waiting run. `front`: it has waited before, and goes ahead of its owner's others."""
        left_s = min(open_run.run.not_before - self._clock.unix_s(), MAX_DELAY_S)
        if left_s > 0:
            open_run.phase = Phase.DELAYED
            open_run.set_timer(self._loop.call_later(left_s, self._due, open_run))
        else:
            self._enqueue(open_run, front=front)

    def see(self, open_run: OpenRun) -> None:
        """A run that is new to this leader: convert its times to the monotonic clock."""
        run, ahead_s = open_run.run, self._clock.now_s() - self._clock.unix_s()
        open_run.accepted_s = min(run.created_at + ahead_s, self._clock.now_s())
        open_run.expires_s = open_run.accepted_s + (run.expires_at - run.created_at) if run.expires_at else 0.0

    def take_out(self, open_run: OpenRun) -> None:
        """It no longer waits, and no worker gets it."""
        self._lanes.remove(open_run)
        open_run.set_timer(None)

    def _enqueue(self, open_run: OpenRun, *, front: bool) -> None:
        run, now_s = open_run.run, self._clock.now_s()
        open_run.phase, open_run.waits_since_s = Phase.WAITING, now_s
        self._lanes.push(open_run, open_run.accepted_s, front=front)
        if open_run.expires_s and not run.executions:
            open_run.set_timer(self._loop.call_later(max(0.0, open_run.expires_s - now_s), self._expire, open_run))

    def _due(self, open_run: OpenRun) -> None:
        if open_run.phase is Phase.DELAYED:
            open_run.set_timer(None)
            self._enqueue(open_run, front=True)
            self._pump(open_run.lane)

    def _expire(self, open_run: OpenRun) -> None:
        if open_run.phase is Phase.WAITING:
            self.take_out(open_run)
            waited_s = self._clock.now_s() - open_run.accepted_s
            self._recorder.finish(open_run, endings.expired(waited_s, self._clock.unix_s()))
