"""The end of a run, told by the thread that the author's code ran in, before the loop hears of it.

Waking the loop to have it answer takes as long as everything else of a quick run, so the thread may answer the caller itself. Laws:

- Either the thread ends the run (`tell`) or the loop does, which cancels, times out and passes on events: whoever holds the lock first.
  The loop closes the right (`close`) before it does anything to the run. When the thread was first, the loop records what it told.
- The loop knows in time: the end is in its mailbox before the caller has a byte, and the loop empties the mailbox before it serves a
  request. So nobody who has an answer finds the run still running.
- The loop waits for no author: under the lock there is only our own code, which does not wait.
"""

import threading
from collections.abc import Callable
from typing import Any, Protocol

from gen_worker.events import RunEvent
from gen_worker.outcome import Outcome

Told = tuple[Outcome, list[RunEvent]]


class EarlyAnswer(Protocol):
    """The way to the caller, from the author's thread."""

    def answer(self, outcome: Outcome, ending: list[RunEvent], before: Callable[[], None]) -> None:
        """Give the caller the outcome of a run whose last events are `ending`. Calls `before` ahead of the first byte; where it does not
        call it, the loop answers."""


class EarlyEnd:
    """Of one run."""

    def __init__(self, way: EarlyAnswer, put: Callable[..., None], ended: Callable[[], None]) -> None:
        self._way = way
        self._put = put
        self._ended = ended
        self._lock = threading.Lock()
        self._open = True
        self._told: Told | None = None

    def tell(self, outcome: Outcome, make_ending: Callable[[list[RunEvent], Outcome], Any]) -> None:
        """In the author's thread: end the run, unless the loop has begun to."""
        with self._lock:
            if not self._open:
                return
            self._open = False
            ending: list[RunEvent] = []
            make_ending(ending, outcome)

            def before() -> None:
                self._told = (outcome, ending)
                self._put(self._ended)

            self._way.answer(outcome, ending, before)

    def close(self) -> Told | None:
        """On the loop: from now on only the loop ends the run. What the thread has told, if it was first."""
        with self._lock:
            self._open = False
            return self._told
