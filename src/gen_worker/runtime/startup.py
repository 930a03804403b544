"""Tracks the start of a worker: each phase becomes a log line and an event, and a watchdog limits the whole start."""

import os
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from gen_worker import events
from gen_worker.log import Log
from gen_worker.wire.messages import Event

MAX_TRACEBACK = 8000


class Startup:
    """Reports the worker's current phase. Events wait until there is a connection."""

    def __init__(self, log: Log, worker_id: str, scheduler_addr: str) -> None:
        self._log = log
        self._began_s = time.monotonic()
        self._facts: Mapping[str, Any] = {"worker_id": worker_id, "scheduler_addr": scheduler_addr}
        self._say: Callable[[Event], None] | None = None
        self._waiting: list[Event] = []

    def connect(self, say: Callable[[Event], None]) -> None:
        """Events can be sent from now on."""
        self._say = say
        for event in self._waiting:
            say(event)
        self._waiting = []

    def disconnect(self) -> None:
        """The connection is over and its loop may be closed: from now on, phases are only logged."""
        self._say = lambda event: None

    @property
    def elapsed_ms(self) -> int:
        return round((time.monotonic() - self._began_s) * 1000)

    def phase(self, phase: str, status: str = "ok", **extras: Any) -> None:
        """The worker has reached this phase; `status` is ok, starting or error."""
        uid, gid = (os.getuid(), os.getgid()) if hasattr(os, "getuid") else (0, 0)
        payload = {
            "phase": phase,
            "status": status,
            **self._facts,
            "pid": os.getpid(),
            "uid": uid,
            "gid": gid,
            "cwd": _cwd(),
            "elapsed_ms": self.elapsed_ms,
            **extras,
        }
        write = self._log.error if status == "error" else self._log.info
        write(events.STARTUP_PHASE, **payload)
        self._emit(events.STARTUP_PHASE, payload)

    def fatal(self, phase: str, exc: BaseException, exit_code: int) -> None:
        """The worker ends because of this exception."""
        trace = "".join(traceback.format_exception(exc))[-MAX_TRACEBACK:]
        payload = {
            "phase": phase,
            "exception_class": type(exc).__name__,
            "exception_message": str(exc),
            "traceback": trace,
            "exit_code": exit_code,
            **self._facts,
            "elapsed_ms": self.elapsed_ms,
        }
        self._log.error(events.WORKER_FATAL, **payload)
        self._emit(events.WORKER_FATAL, payload)

    def unregistered(self, timeout_s: float) -> None:
        """No scheduler accepted the worker in time."""
        self.phase("startup_timeout_unregistered", "error", timeout_s=timeout_s)
        payload = {"phase": "startup_timeout_unregistered", "timeout_s": timeout_s, **self._facts, "elapsed_ms": self.elapsed_ms}
        self._emit(events.STARTUP_TIMEOUT, payload)

    def _emit(self, event_type: str, payload: Mapping[str, Any]) -> None:
        event = Event("", event_type, msgspec.json.encode(payload, enc_hook=repr))
        if self._say is None:
            self._waiting.append(event)
        else:
            self._say(event)


def _cwd() -> str:
    try:
        return str(Path.cwd())
    except OSError:  # an author's module has changed the current folder, and it is gone
        return ""
