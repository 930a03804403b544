"""A step of a run that may fail without preventing the run's end."""

from types import TracebackType

from gen_worker.log import Log
from gen_worker.outcome import failure_of


class StepGuard:
    """Catches whatever a step raises and logs our own failures."""

    __slots__ = ("_function", "_log", "_run_id", "_what")

    def __init__(self, log: Log, what: str, run_id: str, function: str) -> None:
        self._log = log
        self._what = what
        self._run_id = run_id
        self._function = function

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None) -> bool:
        if exc is not None:
            self.broke(exc)
        return True

    def broke(self, exc: BaseException) -> None:
        """Log what the step raised."""
        failure = failure_of(exc)
        facts = {"run_id": self._run_id, "function": self._function, "step": self._what}
        try:
            self._log.error("run.step_broken", **facts, error=failure.outcome.error_message, traceback=failure.trace)
        except BaseException:  # noqa: BLE001, S110 - a log that raises is the last thing that may stop a run from ending
            pass
