"""How much device memory stays free of models, for the functions' own work.

That is at least the configured margin, and more when a function was seen to need more, for example for the activations
of a large image.
"""

from collections.abc import Callable

from gen_worker.content.measured import Measurements
from gen_worker.residency.device import Device
from gen_worker.residency.devices import CONTEXT_BYTES, bound_of
from gen_worker.residency.ledger import Ledger

TELLING = 0.9  # a measured need below this share of the known one replaces it; between this share and the known need nothing is written


class Headroom:
    """The headroom of one device. Lives on one event loop.

    A function's need in bytes is measured while it runs alone and no model is loaded or evicted. While several
    functions run, a peak could belong to any of them. `device` returns None until the device is first used.
    """

    def __init__(self, device: Callable[[], Device | None], ledger: Ledger, measurements: Measurements, margin_bytes: int) -> None:
        self._device = device
        self._ledger = ledger
        self._measurements = measurements
        self._margin_bytes = margin_bytes
        self._expected: set[str] = set()  # functions whose runs were sent here
        self._running: list[_Work] = []
        ledger.heed(bound=self._allowed_bytes, wish=lambda: self._allowed_bytes(self.spare_bytes))

    @property
    def spare_bytes(self) -> int:
        """Bytes beyond the margin: the sum for the functions that run now, or the largest need of one function, whichever is more."""
        running = sum(self._need_bytes(work.function) for work in self._running)
        most = max((self._need_bytes(function) for function in self._expected), default=0)
        return max(0, CONTEXT_BYTES + max(running, most) - self._margin_bytes)

    @property
    def working(self) -> int:
        """How many functions are working with models here."""
        return len(self._running)

    def expect(self, function: str) -> None:
        """A run of this function was sent here."""
        self._expected.add(function)

    def begin(self, function: str) -> Callable[[], None]:
        """An expected function begins its work. Call the returned function when it has ended."""
        work = _Work(function, self._ledger.used_bytes)
        for other in self._running:
            other.base_bytes = None
        if not self._running:
            self._take_peak()
            work.base_bytes = self._take_peak()  # the first call resets the peak, so the second one tells what is allocated now
        self._running.append(work)
        return lambda: self._end(work)

    def _end(self, work: "_Work") -> None:
        self._running.remove(work)
        peak = self._take_peak() if work.base_bytes is not None and self._ledger.used_bytes == work.booked_bytes else None
        if peak is None or work.base_bytes is None:
            return
        need, known = max(0, peak - work.base_bytes), self._need_bytes(work.function)
        if not known * TELLING <= need <= known:
            self._measurements.note(_name(work.function), need)

    def _need_bytes(self, function: str) -> int:
        known = self._measurements.of(_name(function))
        return known.size_bytes if known is not None else 0

    def _take_peak(self) -> int | None:
        device = self._device()
        return device.take_peak() if device is not None else None

    def _allowed_bytes(self, spare_bytes: int = 0) -> int:
        """How many bytes of models the device may hold while `spare_bytes` more than the margin stay free."""
        found = bound_of(self._device(), self._margin_bytes + spare_bytes)
        return self._ledger.limit_bytes if found is None else found


class _Work:
    def __init__(self, function: str, booked_bytes: int) -> None:
        self.function = function
        self.booked_bytes = booked_bytes
        self.base_bytes: int | None = None  # bytes allocated when the function began; None once it no longer runs alone


def _name(function: str) -> str:
    return f"work: {function}"
