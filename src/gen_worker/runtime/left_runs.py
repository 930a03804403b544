"""Tells the scheduler about author's code that goes on although its run is over. A thread cannot be ended, but this
process can be replaced.

A run that was canceled or timed out ends at once for its caller. Its thread is left to return by itself; well-behaved
code does so within a moment.
"""

import asyncio

import msgspec

from gen_worker import events
from gen_worker.execution.threads import LeftThread, RunThreads
from gen_worker.runtime.voice import Voice
from gen_worker.wire.messages import Event

LEFT_AFTER_S = 10.0


class LeftRuns:
    """Checks only while a run has ended recently: `watch` is called at each end, and costs nothing while it is already checking."""

    def __init__(self, threads: RunThreads, voice: Voice) -> None:
        self._threads = threads
        self._voice = voice
        self._told: set[str] = set()
        self._timer: asyncio.TimerHandle | None = None

    def watch(self) -> None:
        """A run has ended; its code may still be running."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(LEFT_AFTER_S, self._look)

    def _look(self) -> None:
        self._timer = None
        left = self._threads.left()
        self._told.intersection_update([thread.run_id for thread in left])
        for thread in left:
            if thread.seconds >= LEFT_AFTER_S - 0.5 and thread.run_id not in self._told:
                self._told.add(thread.run_id)
                self._tell(thread)
        if left:
            oldest_s = max((thread.seconds for thread in left if thread.run_id not in self._told), default=0.0)
            self._timer = asyncio.get_running_loop().call_later(max(0.1, LEFT_AFTER_S - oldest_s), self._look)

    def _tell(self, thread: LeftThread) -> None:
        payload = msgspec.json.encode({"run_id": thread.run_id, "function": thread.function, "seconds": thread.seconds})
        self._voice.say(Event("", events.RUN_LEFT, payload))
