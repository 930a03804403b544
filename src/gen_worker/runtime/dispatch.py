"""Passes each of the scheduler's requests to the part that handles it. Nothing here waits, because the receiving side must never stop."""

from collections.abc import Callable
from functools import partial

from gen_worker.log import Log
from gen_worker.runtime.duties import Duties
from gen_worker.runtime.identity import Identity
from gen_worker.runtime.model_commands import ModelCommands
from gen_worker.runtime.realtime import RealtimeSessions
from gen_worker.runtime.releases import Releases
from gen_worker.runtime.wire_runs import WireRuns
from gen_worker.wire.messages import (
    CloseRealtime,
    InterruptRun,
    LoadModel,
    OpenRealtime,
    RealtimeCredit,
    RealtimeFrame,
    ReleaseConfig,
    RunCommand,
    UnloadModel,
    UrlRefreshResponse,
)
from gen_worker.wire.worker_session import Ignored, RotateToken, WorkerEffect


class Dispatch:
    """Passes each effect of the session to the part that carries it out."""

    def __init__(
        self,
        runs: WireRuns,
        realtime: RealtimeSessions,
        releases: Releases,
        commands: ModelCommands,
        identity: Identity,
        has_credit: Callable[[], bool],
        has_window: Callable[[], bool],
        duties: Duties,
        log: Log,
    ) -> None:
        self._runs = runs
        self._realtime = realtime
        self._releases = releases
        self._commands = commands
        self._identity = identity
        self._has_credit = has_credit
        self._has_window = has_window
        self._duties = duties
        self._log = log

    def apply(self, effect: WorkerEffect) -> None:
        """Start what the effect asks for, and return. Never raises: a bad request must not end the stream that it came on."""
        self._duties.attempt(partial(self._apply, effect), type(effect).__name__, partial(self._refuse, effect))

    def _refuse(self, effect: WorkerEffect, error: Exception) -> None:
        """Answer a command that could not even be started."""
        match effect:
            case OpenRealtime(session_id):
                self._realtime.refuse(session_id, error)
            case LoadModel(model_id):
                self._commands.refuse_load(model_id, error)
            case UnloadModel(model_id):
                self._commands.refuse_unload(model_id, error)
            case _:  # these need no answer, or, as for runs, it was already given
                self._log.warning("wire.refused", message=type(effect).__name__, error=type(error).__name__)

    def _apply(self, effect: WorkerEffect) -> None:
        match effect:
            case RunCommand():
                self._runs.start(effect)
            case InterruptRun(run_id):
                self._runs.interrupt(run_id)
                self._realtime.interrupt(run_id)
            case RealtimeFrame():
                self._realtime.frame(effect)
            case OpenRealtime():
                self._realtime.open(effect, has_credit=self._has_credit(), has_window=self._has_window())
            case RealtimeCredit(session_id, frames):
                self._realtime.credit(session_id, frames)
            case CloseRealtime(session_id):
                self._realtime.close(session_id)
            case LoadModel(model_id):
                self._commands.load(model_id)
            case UnloadModel(model_id):
                self._commands.unload(model_id)
            case ReleaseConfig():
                self._releases.adopt(effect)
            case UrlRefreshResponse():
                self._releases.take_urls(effect)
            case RotateToken(token):
                self._rotate(token)
            case Ignored(what):
                self._log.warning("wire.ignored", message=what)

    def _rotate(self, token: str) -> None:
        try:
            self._identity.rotate(token)
        except ValueError as exc:
            self._log.warning("worker.jwt.rotation_refused", error=str(exc))
        else:
            self._log.info("worker.jwt.rotated")
