"""Shows why a run is waiting: asks the platform in a separate thread while the run is queued.

Each new reason is one line. On a terminal, a bar counts down to the next attempt.
"""

import threading
import time
from collections.abc import Callable
from typing import Any

from gen_orchestrator.cli.api import ApiError

PATIENCE_S = 0.3  # before the first request: a shorter wait is not worth a line
EVERY_S = 1.0
SHARE = 20  # a slow request is repeated less often
LAST_LINES = 5


class Waiting:
    """For one run. `look` fetches the run's current state; `say` prints a line, `stage` shows a few words beside the bar."""

    def __init__(self, look: Callable[[str], dict[str, Any]], say: Callable[[str], None], stage: Callable[[str], None]) -> None:
        self._look = look
        self._say = say
        self._stage = stage
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._ended.set()
        self._told = ""

    def begin(self, run_id: str) -> None:
        """The run is queued."""
        self.end()
        self._ended = threading.Event()
        threading.Thread(target=self._watch, args=(run_id, self._ended), daemon=True, name="waiting").start()

    def end(self) -> None:
        """The run is no longer queued, or nobody wants to know: nothing is printed after this returns."""
        with self._lock:
            self._ended.set()

    def _watch(self, run_id: str, ended: threading.Event) -> None:
        pause_s = PATIENCE_S
        while not ended.wait(pause_s):
            began_s = time.monotonic()
            try:
                run = self._look(run_id)
            except ApiError:
                run = {}  # whoever follows the events reports it
            pause_s = max(EVERY_S, SHARE * (time.monotonic() - began_s))
            with self._lock:
                if ended.is_set():
                    return
                if run.get("status") == "queued":
                    self._tell(run.get("routing") or {})

    def _tell(self, wait: dict[str, Any]) -> None:
        reason, detail = wait.get("reason", ""), wait.get("detail", "")
        if "retry_in_s" in wait:
            self._stage(f"next attempt in {wait['retry_in_s']:.0f} s")
        told = f"{reason} {detail.partition(';')[0]}" if reason == "retry_later" else reason
        if not detail or told == self._told:
            return
        self._told = told
        self._say(detail if reason == "retry_later" else f"queued: {detail}")
        for line in wait.get("last_lines", "").splitlines()[-LAST_LINES:]:
            self._say(f"  | {line}")
