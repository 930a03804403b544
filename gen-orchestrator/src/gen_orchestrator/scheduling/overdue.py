"""Ends runs that continue too long: past their time limit, or after a cancel.

    LEASED --its time is over, and TIMEOUT_BACKUP_S more--> the worker is told, the run ends as out of time
    LEASED --it sent more output than is kept--> the worker is told --CANCEL_GRACE_S--> the run ends as failed
    LEASED --canceled--> the worker is told --CANCEL_GRACE_S--> the run ends as canceled

The worker should have ended such a run itself. If it did not, the run ends here while its code still runs there: `zombies` keeps its slot
counted, and `Fitness` has the worker replaced.
"""

import asyncio
from collections.abc import Callable

from gen_orchestrator.domain.runs import Ending
from gen_orchestrator.scheduling import endings
from gen_orchestrator.scheduling.fitness import Fitness
from gen_orchestrator.scheduling.lane import Lane
from gen_orchestrator.scheduling.open_run import OpenRun, Phase
from gen_orchestrator.scheduling.recorder import Recorder
from gen_worker.clock import Clock
from gen_worker.log import Log

TIMEOUT_BACKUP_S = 15.0  # after the worker's own deadline
CANCEL_GRACE_S = 10.0


class Overdue:
    """One for each leader. `detach` takes a run from its worker; `pump` gives the lane's next runs to workers."""

    def __init__(
        self,
        recorder: Recorder,
        fitness: Fitness,
        clock: Clock,
        log: Log,
        detach: Callable[[OpenRun], None],
        pump: Callable[[Lane], None],
    ) -> None:
        self._recorder = recorder
        self._fitness = fitness
        self._clock = clock
        self._log = log
        self._detach = detach
        self._pump = pump
        self._loop = asyncio.get_running_loop()

    def watch(self, open_run: OpenRun) -> None:
        """From now on a worker has this run."""
        if open_run.run.timeout_ms:
            after_s = open_run.run.timeout_ms / 1000 + TIMEOUT_BACKUP_S
            open_run.set_timer(self._loop.call_later(after_s, self._out_of_time, open_run))

    def interrupt(self, open_run: OpenRun) -> None:
        """Tell its worker to stop it; a canceled run that continues for `CANCEL_GRACE_S` ends without its worker."""
        if open_run.phase is not Phase.LEASED or open_run.worker is None:
            return
        open_run.worker.interrupt(open_run.id)
        if open_run.cancel_requested:
            open_run.set_timer(self._loop.call_later(CANCEL_GRACE_S, self._cancel_overdue, open_run))

    def leave(self, open_run: OpenRun) -> None:
        """The client of this session has left: its handler ends by itself, within `CANCEL_GRACE_S`."""
        if open_run.phase is Phase.LEASED and open_run.worker is not None:
            open_run.worker.leave(open_run.id)
            open_run.set_timer(self._loop.call_later(CANCEL_GRACE_S, self._cancel_overdue, open_run))

    def end_session(self, open_run: OpenRun) -> None:
        """The platform ends this session: its handler is cancelled, and has `CANCEL_GRACE_S` to end."""
        if open_run.phase is Phase.LEASED and open_run.worker is not None:
            open_run.worker.interrupt(open_run.id)
            open_run.set_timer(self._loop.call_later(CANCEL_GRACE_S, self._cancel_overdue, open_run))

    def end(self, open_run: OpenRun, ending: Ending) -> None:
        """End a run in this way, whatever its worker says: it is told to stop it, and has `CANCEL_GRACE_S` for that."""
        if open_run.ends_as is None and open_run.phase is Phase.LEASED:
            open_run.ends_as = ending
            self.interrupt(open_run)
            open_run.set_timer(self._loop.call_later(CANCEL_GRACE_S, self._end_overdue, open_run, ending))

    def _end_overdue(self, open_run: OpenRun, ending: Ending) -> None:
        if open_run.phase is Phase.LEASED:
            self._give_up(open_run, f"run {open_run.id} went on for {CANCEL_GRACE_S:.0f} s after it was told to stop")
            self._recorder.finish(open_run, ending)
            self._pump(open_run.lane)

    def _out_of_time(self, open_run: OpenRun) -> None:
        if open_run.phase is not Phase.LEASED:
            return
        self.interrupt(open_run)
        self._give_up(open_run, f"run {open_run.id} went on for {TIMEOUT_BACKUP_S:.0f} s after its time was over")
        self._recorder.finish(open_run, endings.out_of_time(open_run.run, open_run.stuck, self._clock.unix_s()))

    def _cancel_overdue(self, open_run: OpenRun) -> None:
        if open_run.phase is Phase.LEASED:
            self._log.warning("run.ignores_cancel", run_id=open_run.id, worker_id=open_run.run.worker_id)
            self._give_up(open_run, f"run {open_run.id} went on for {CANCEL_GRACE_S:.0f} s after it was canceled")
            self._recorder.cancel(open_run)
            self._pump(open_run.lane)

    def _give_up(self, open_run: OpenRun, why: str) -> None:
        worker = open_run.worker
        self._detach(open_run)
        if worker is not None:
            worker.zombies.add(open_run.id)
            self._fitness.ignores(worker.worker_id, why)
