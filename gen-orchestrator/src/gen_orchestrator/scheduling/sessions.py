"""Realtime sessions among the runs of a leader: messages of their workers and clients, and how each session ends.

A session is a run whose lane has `FunctionSettings.is_session`. It is accepted, queued, leased, measured, canceled and
recorded like every other run. Three things differ. The command `OpenRealtime` starts it; the worker's `CloseRealtime`
is its result; and once a worker has begun it, it is never retried, because frames were lost with that worker or its
stream.

    WAITING --leased: OpenRealtime--> LEASED --the worker grants credit--> begun --CloseRealtime--> ENDING
      the client leaves: canceled       the client leaves: the worker is told, and says how the handler ended
      the worker refuses: waits again   the worker, its stream, or this leadership is lost: failed, and the client is told
"""

from collections.abc import Callable, Iterable

from gen_orchestrator.domain.retries import REFUSAL, Again
from gen_orchestrator.domain.runs import Run
from gen_orchestrator.scheduling.heard import MAX_DETAIL_CHARS, MAX_MESSAGE_CHARS, MAX_WORD_CHARS
from gen_orchestrator.scheduling.open_run import OpenRun, Phase
from gen_orchestrator.scheduling.overdue import Overdue
from gen_orchestrator.scheduling.pool import Worker
from gen_orchestrator.scheduling.recorder import Recorder
from gen_worker.clock import Clock
from gen_worker.log import Log
from gen_worker.texts import sound
from gen_worker.wire.messages import CloseRealtime, RealtimeCredit, RealtimeFrame, RunResult

LEADER_LOST = "leader_lost"
_REFUSALS = frozenset({"max_concurrency_reached", "function_concurrency_reached", "worker_draining"})
_IN_ORDER = frozenset({"completed", "closed"})


class Sessions:
    """One for each leader. `cancel_waiting` ends a run that no worker has; `detach` takes one from its worker."""

    def __init__(
        self,
        recorder: Recorder,
        overdue: Overdue,
        clock: Clock,
        log: Log,
        cancel_waiting: Callable[[OpenRun], None],
        detach: Callable[[OpenRun], None],
    ) -> None:
        self._recorder = recorder
        self._overdue = overdue
        self._clock = clock
        self._log = log
        self._cancel_waiting = cancel_waiting
        self._detach = detach

    # ---- clients

    def left(self, open_run: OpenRun) -> None:
        """The client has left: its handler is told, and ends by itself within seconds."""
        session = open_run.session
        if session is None or session.has_left:
            return
        session.has_left = True
        if open_run.phase in (Phase.WAITING, Phase.DELAYED):
            self._cancel_waiting(open_run)
        else:
            self._overdue.leave(open_run)

    def end(self, open_run: OpenRun, reason: str) -> None:
        """End it now for a reason of ours; the client is told at once, and the handler is cancelled."""
        session = open_run.session
        if session is None or open_run.is_over:
            return
        session.close(reason)
        session.has_left = True
        if open_run.phase in (Phase.WAITING, Phase.DELAYED):
            self._cancel_waiting(open_run)
        else:
            self._overdue.end_session(open_run)

    def end_of_invoker(self, open_runs: Iterable[OpenRun], invoker_id: str, reason: str) -> None:
        """End the sessions that this caller has opened."""
        for open_run in list(open_runs):
            if open_run.session is not None and open_run.run.invoker_id == invoker_id:
                self.end(open_run, reason)

    # ---- workers

    def begin(self, open_run: OpenRun) -> None:
        """Its worker was just sent the session."""
        session, worker = open_run.session, open_run.worker
        if session is None or worker is None or worker.link is None:
            return
        session.attach(worker.link)
        if not worker.link.counts_frames:
            self._begun(open_run)  # such a worker does not say when it begins
        if session.has_left:
            self._overdue.leave(open_run)

    def heard(self, worker: Worker, message: RealtimeFrame | RealtimeCredit) -> None:
        """A frame of the handler's, or credit for frames of the client's. Ignored for a session that is over."""
        open_run = worker.runs.get(message.session_id)
        if open_run is None or open_run.session is None or open_run.phase is not Phase.LEASED:
            return
        self._begun(open_run)
        if isinstance(message, RealtimeFrame):
            open_run.session.take(message)
        else:
            open_run.session.grant(message.frames)

    def result_of(self, worker: Worker, message: CloseRealtime) -> RunResult:
        """The run result that follows from the worker's last message about a session."""
        open_run, reason = worker.runs.get(message.session_id), sound(message.reason, MAX_WORD_CHARS)
        if open_run is None or open_run.session is None:
            return RunResult(message.session_id)
        if reason in _REFUSALS and not open_run.started:
            return RunResult(open_run.id, False, b"", reason, "retryable", True, REFUSAL)
        session = open_run.session
        session.reason = session.reason or reason
        if reason in _IN_ORDER:
            return RunResult(open_run.id, True)
        text = sound(message.safe_message, MAX_MESSAGE_CHARS) or session.reason
        kind = message.error_type or ("internal" if reason.startswith("error:") else "fatal")
        detail = sound(message.error_message, MAX_DETAIL_CHARS)
        return RunResult(open_run.id, False, b"", detail, kind, False, text, code=message.code or kind)

    def stream_lost(self, worker: Worker) -> None:
        """The stream of this worker is gone, and with it frames in transit: its sessions end."""
        for open_run in list(worker.runs.values()):
            if open_run.session is not None and open_run.phase is Phase.LEASED:
                self._log.warning("session.stream_lost", run_id=open_run.id, worker_id=worker.worker_id)
                self._detach(open_run)
                self._recorder.settle(open_run, Again(0.0, executed=False))

    def drain(self, open_runs: Iterable[OpenRun]) -> None:
        """This program ends. Sessions do not end by themselves, so they are not waited for."""
        for open_run in list(open_runs):
            self.end(open_run, "worker_draining")

    def end_all(self, open_runs: Iterable[OpenRun], reason: str) -> None:
        """This node no longer leads: clients are told. The next leader stores the end of these runs."""
        for open_run in list(open_runs):
            if open_run.session is not None:
                open_run.session.close(reason)

    def over(self, open_run: OpenRun, run: Run) -> None:
        """The end of a session is stored: the client is told, with the reason."""
        session = open_run.session
        if session is None:
            return
        session.close(session.reason)
        facts = session.facts
        write = self._log.info if facts.reason in _IN_ORDER else self._log.warning
        write(
            "session.ended",
            run_id=run.id,
            function=f"{run.owner}/{run.endpoint}/{run.function}",
            status=str(run.state),
            reason=facts.reason,
            frames_in=facts.frames_in,
            frames_out=facts.frames_out,
            worker_id=run.worker_id,
            ms=max(0, round((run.finished_at - run.created_at) * 1000)),
        )

    def _begun(self, open_run: OpenRun) -> None:
        if not open_run.started:
            open_run.started = True
            open_run.started_s = self._clock.now_s()
            open_run.feed.status_changed()
