"""Output of `cozyctl dev` while it serves: a line for each run and each refused request, and the functions' own output."""

import logging
import sys
import threading
from io import RawIOBase, TextIOWrapper
from typing import Any, TextIO

import msgspec

from gen_worker import events
from gen_worker.dev.runs import DevRun
from gen_worker.events import RunEvent
from gen_worker.log import Log

MAX_LINE = 10_000


class RunLines:
    """Lives on the loop."""

    def __init__(self, log: Log) -> None:
        self._log = log

    def said(self, run: DevRun, batch: list[RunEvent]) -> None:
        """A function called `ctx.log`."""
        for event in batch:
            if event.event_type == events.LOG and isinstance(event.payload, msgspec.Raw):
                found = msgspec.json.decode(event.payload)
                write = {"error": self._log.error, "warning": self._log.warning}.get(str(found.get("level")), self._log.info)
                write("run.log", function=run.function, run_id=run.run_id, message=str(found.get("message"))[:MAX_LINE])

    def ended(self, run: DevRun) -> None:
        """One line for each run, with its error."""
        assert run.outcome is not None
        facts: dict[str, Any] = {"function": run.function, "status": run.status}
        facts |= {"ms": round(((run.finished_s or 0) - run.created_s) * 1000), "run_id": run.run_id}
        if run.outcome.success:
            self._log.info("run.ended", **facts)
        else:
            self._log.warning("run.ended", **facts, error=f"{run.outcome.error_type}: {run.outcome.safe_message}")

    def session_ended(self, run: DevRun, reason: str, *, frames_in: int, frames_out: int) -> None:
        """One line for each realtime session: why it ended, and how many frames went in and out."""
        assert run.outcome is not None
        facts: dict[str, Any] = {"function": run.function, "reason": reason, "frames_in": frames_in, "frames_out": frames_out}
        facts |= {"ms": round(((run.finished_s or 0) - run.created_s) * 1000), "run_id": run.run_id}
        if reason in ("completed", "closed"):
            self._log.info("session.ended", **facts)
        elif reason.startswith("error:"):
            self._log.warning("session.ended", **facts, error=f"{run.outcome.error_type}: {run.outcome.safe_message}")
        else:
            self._log.warning("session.ended", **facts)

    def session_refused(self, function: str, reason: str) -> None:
        """A websocket that found no free slot."""
        self._log.warning("session.refused", function=function, reason=reason)

    def refused(self, method: str, path: str, status: int, reason: str) -> None:
        """A request that never became a run."""
        self._log.warning("request.refused", method=method, path=path[:200], status=status, reason=reason)


def show_what_functions_say(log: Log, *, as_json: bool) -> None:
    """Show `print` line by line, and `logging` from INFO on; with `as_json` as JSON, including warnings and output to
    stderr.

    `log` has its own stream. What C code and child processes write to the descriptors stays text on stderr, or becomes
    lines of JSON by `raw_output`.
    """
    if as_json:
        sys.stdout, sys.stderr = _as_lines(log), _as_lines(log)
        logging.captureWarnings(True)
    elif hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(line_buffering=True)
    root = logging.getLogger()
    if not root.handlers:
        root.addHandler(_Records(log))
        root.setLevel(logging.INFO)


def _of_run() -> dict[str, str]:
    """The run that prints or logs, if its thread is named after it."""
    word, _, rest = threading.current_thread().name.partition(" ")
    function, _, run_id = rest.partition(" ")
    return {"function": function, "run_id": run_id} if word == "run" and run_id else {}


class _Records(logging.Handler):
    """Records of `logging` as lines of the log."""

    def __init__(self, log: Log) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = self.format(record)
        except Exception as exc:  # noqa: BLE001 - arguments that do not fit their format are the author's
            text = f"a record that cannot be shown: {type(exc).__name__}"
        write = (
            self._log.error
            if record.levelno >= logging.ERROR
            else self._log.warning
            if record.levelno >= logging.WARNING
            else self._log.info
        )
        write("logging", **_of_run(), logger=record.name, message=text[:MAX_LINE])


class _PrintsAsLines(RawIOBase):
    """The raw layer below a text stream; its lines become lines of the log, so that `--json` prints nothing else."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._begun = threading.local()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        *lines, rest = (getattr(self._begun, "data", b"") + bytes(data)).split(b"\n")
        if len(rest) > MAX_LINE:
            lines, rest = [*lines, rest], b""
        self._begun.data = rest
        for line in lines:
            self._log.info("print", **_of_run(), message=line[:MAX_LINE].decode("utf-8", "replace"))
        return len(data)


def _as_lines(log: Log) -> TextIO:
    return TextIOWrapper(_PrintsAsLines(log), "utf-8", "backslashreplace", write_through=True)  # type: ignore[type-var]
