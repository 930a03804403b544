"""Tracks a model on its way to the device and tells listeners."""

import threading
import time
from collections.abc import Callable

from gen_worker.contract.progress import ModelProgress, Phase

TELL_EVERY_S = 0.25
RATE_HALF_LIFE_S = 3.0

Listener = Callable[[ModelProgress], None]


class Progress:
    """Counts from any thread. Listeners are called in the counting thread: for each change of phase, and for bytes at
    most four times a second.
    """

    def __init__(self, model_id: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.model_id = model_id
        self._clock = clock
        self._lock = threading.Lock()
        self._listeners: list[Listener] = []
        self._phase: Phase = "waiting"
        self._done = self._total = 0
        self._rate = 0.0
        self._rated_s = self._told_s = clock()
        self._rated_done = 0
        self.loaded_bytes = 0  # bytes that the finished load moved

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Listen from now on. Call the returned function to stop."""
        with self._lock:
            self._listeners.append(listener)
        listener(self.now())
        return lambda: self._listeners.remove(listener) if listener in self._listeners else None

    def begin(self, phase: Phase, total_bytes: int = 0) -> None:
        """Enter a phase."""
        with self._lock:
            self._phase, self._done, self._total = phase, 0, total_bytes
            self._rate, self._rated_done, self._rated_s = 0.0, 0, self._clock()
        self._tell()

    def add(self, size_bytes: int) -> None:
        """Bytes arrived; a negative number takes bytes back."""
        with self._lock:
            self._done += size_bytes
            now_s = self._clock()
            if now_s - self._told_s < TELL_EVERY_S:
                return
            self._measure(now_s)
        self._tell()

    def now(self) -> ModelProgress:
        with self._lock:
            left = max(0, self._total - self._done)
            eta_s = round(left / self._rate, 1) if self._rate > 0 and self._total else None
            return ModelProgress(self.model_id, self._phase, max(0, self._done), self._total, round(self._rate), eta_s)

    def _measure(self, now_s: float) -> None:
        elapsed_s = now_s - self._rated_s
        if elapsed_s <= 0:
            return
        seen = max(0.0, (self._done - self._rated_done) / elapsed_s)
        weight = 0.5 ** (elapsed_s / RATE_HALF_LIFE_S) if self._rate else 0.0
        self._rate = self._rate * weight + seen * (1 - weight)
        self._rated_s, self._rated_done = now_s, self._done

    def _tell(self) -> None:
        self._told_s = self._clock()
        now = self.now()
        for listener in tuple(self._listeners):
            listener(now)
