"""Lets the thread that ran the author's code answer the caller before the event loop hears of the result.

Waking the loop takes as long as everything else in a quick run, so the thread may answer the caller itself. Laws:

- Either the thread ends the run (`tell`) or the loop does, which cancels, times out and passes on events: whoever takes
  the lock first. The loop takes this right away (`close`) before it does anything to the run. When the thread was
  first, the loop records what it reported.
- The loop is never behind: the end is in its mailbox before the caller has a byte, and the loop empties the mailbox
  before it serves a request. So nobody who has an answer finds the run still running.
- The loop waits for no author: only our own code runs under the lock, and it does not wait.
"""

import threading
from collections.abc import Callable
from typing import Any, Protocol

from gen_worker.events import RunEvent
from gen_worker.outcome import Outcome

Told = tuple[Outcome, list[RunEvent]]


class EarlyAnswer(Protocol):
    """Answers the caller from the author's thread."""

    def answer(self, outcome: Outcome, ending: list[RunEvent], before: Callable[[], None]) -> None:
        """Give the caller the outcome of a run whose last events are `ending`. Call `before` ahead of the first byte;
        if it is not called, the loop answers.
        """


class EarlyEnd:
    """The right to end one run."""

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
        """On the loop: from now on only the loop ends the run. Returns what the thread reported, if it was first."""
        with self._lock:
            self._open = False
            return self._told
