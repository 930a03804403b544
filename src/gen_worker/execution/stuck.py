"""Warns about phases of runs that take too long, with the Python stacks of the threads that work on them."""

import asyncio
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any, Literal

import msgspec

from gen_worker import events
from gen_worker.events import RunEvent, Stuck
from gen_worker.log import Log
from gen_worker.texts import repr_of, sound

Phase = Literal["model_resolve", "model_load", "inference"]
_EVENTS: Mapping[str, str] = {
    "model_resolve": events.RESOLVE_STUCK,
    "model_load": events.LOAD_STUCK,
    "inference": events.INFERENCE_STUCK,
}
MAX_STACK_CHARS = 4000
MAX_STACKS = 4


class StuckAfter(msgspec.Struct, frozen=True):
    """Seconds after which a phase is reported, once; 0 or less means never."""

    model_resolve_s: float = 30.0
    model_load_s: float = 60.0
    inference_s: float = 60.0

    def by_phase(self) -> Mapping[Phase, float]:
        return {"model_resolve": self.model_resolve_s, "model_load": self.model_load_s, "inference": self.inference_s}


class WatchedPhase(msgspec.Struct, eq=False):
    """One phase of one run, while it lasts. `stacks` shows what is working on it. `since`, if given, tells since when
    it has been working, and None while it waits: a realtime session may be open for hours and mostly waits for its
    client.
    """

    phase: Phase
    run_id: str
    function: str
    emit: Callable[[RunEvent], None]
    began_s: float
    stacks: Callable[[], list[str]]
    facts: Mapping[str, Any]
    since: Callable[[], float | None] | None = None
    reported_s: float = 0.0


class StuckWatch:
    """Checks all running phases a few times per threshold; entering and leaving one costs next to nothing. Lives on the loop."""

    def __init__(self, after: StuckAfter, log: Log) -> None:
        self._after_s = after.by_phase()
        self._log = log
        self._phases: set[WatchedPhase] = set()
        limits = [limit for limit in self._after_s.values() if limit > 0]
        self._interval_s = max(0.02, min(1.0, min(limits) / 4)) if limits else 0.0
        self._timer: asyncio.TimerHandle | None = None

    def enter(
        self,
        phase: Phase,
        run_id: str,
        function: str,
        emit: Callable[[RunEvent], None],
        stacks: Callable[[], list[str]],
        since: Callable[[], float | None] | None = None,
        **facts: Any,
    ) -> WatchedPhase | None:
        """Watch a phase until `leave`; None when this phase is not watched. With `since`, each stretch of work is reported once."""
        if self._after_s[phase] <= 0:
            return None
        watched = WatchedPhase(phase, run_id, function, emit, time.monotonic(), stacks, facts, since)
        self._phases.add(watched)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._interval_s, self._look)
        return watched

    def leave(self, watched: WatchedPhase | None) -> None:
        if watched is not None:
            self._phases.discard(watched)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        now_s = time.monotonic()
        for watched in list(self._phases):
            began_s = watched.began_s if watched.since is None else watched.since()
            if began_s is not None and began_s != watched.reported_s and now_s - began_s >= self._after_s[watched.phase]:
                watched.reported_s = began_s
                if watched.since is None:
                    self._phases.discard(watched)
                try:
                    self._report(watched, now_s - began_s)
                except Exception as exc:  # noqa: BLE001 - one phase that cannot be shown must not end the watch over the others
                    self._log.error("run.stuck_unreported", run_id=watched.run_id, error=repr_of(exc))
        self._timer = asyncio.get_running_loop().call_later(self._interval_s, self._look) if self._phases else None

    def _report(self, watched: WatchedPhase, elapsed_s: float) -> None:
        stacks = tuple(sound(stack[-MAX_STACK_CHARS:]) for stack in watched.stacks()[:MAX_STACKS])
        stuck = Stuck(
            watched.phase, self._after_s[watched.phase], round(elapsed_s * 1000), watched.function, stacks=stacks, **watched.facts
        )
        self._log.warning(_EVENTS[watched.phase], run_id=watched.run_id, **msgspec.to_builtins(stuck))
        watched.emit(RunEvent(_EVENTS[watched.phase], stuck))


def thread_stacks(prefix: str) -> list[str]:
    """Python stacks of the threads whose names start with `prefix`, innermost call last."""
    frames = sys._current_frames()
    found = []
    for thread in threading.enumerate():
        frame = frames.get(thread.ident or 0)
        if thread.name.startswith(prefix) and frame is not None:
            found.append(f"thread {thread.name!r}\n" + "".join(traceback.format_stack(frame)))
    return found


def task_stacks(task: "asyncio.Task[Any] | None") -> list[str]:
    """The Python stack of a task, down to the innermost coroutine that it awaits."""
    if task is None:
        return []
    lines = []
    awaited: Any = task.get_coro()
    while awaited is not None:
        frame = getattr(awaited, "cr_frame", None) or getattr(awaited, "ag_frame", None)
        if frame is not None:
            lines += traceback.format_list([traceback.FrameSummary(frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name)])
        awaited = getattr(awaited, "cr_await", None) or getattr(awaited, "ag_await", None)
    return [f"task {task.get_name()!r}\n" + "".join(lines)]
