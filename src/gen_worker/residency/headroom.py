"""How much device memory is kept free of models, for the functions' own work.

At least the margin that was set. More, where a function was seen to need more: activations of a large image, for example.
"""

from collections.abc import Callable

from gen_worker.content.measured import Measurements
from gen_worker.residency.device import Device
from gen_worker.residency.devices import CONTEXT_BYTES, bound_of
from gen_worker.residency.ledger import Ledger

TELLING = 0.9  # a need below this share of the known one replaces it; between this share and the known one nothing is written


class Headroom:
    """The headroom of one device. Lives on one event loop.

    A function's need in bytes is measured while it runs alone and no model is loaded or evicted. While several run, a peak could be
    anybody's. `device` gives None until somebody uses the device.
    """

    def __init__(self, device: Callable[[], Device | None], ledger: Ledger, measurements: Measurements, margin_bytes: int) -> None:
        self._device = device
        self._ledger = ledger
        self._measurements = measurements
        self._margin_bytes = margin_bytes
        self._expected: set[str] = set()  # functions that run here
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
        """How many functions work with models here now."""
        return len(self._running)

    def expect(self, function: str) -> None:
        """A run of this function has been sent here."""
        self._expected.add(function)

    def begin(self, function: str) -> Callable[[], None]:
        """A function that was expected begins its work; call what this returns when it has ended."""
        work = _Work(function, self._ledger.used_bytes)
        for other in self._running:
            other.base_bytes = None
        if not self._running:
            self._take_peak()
            work.base_bytes = self._take_peak()  # a second peak, right after the first, is what is allocated now
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
        """How many bytes of models may be on the device when `spare_bytes` more than the margin stay free."""
        found = bound_of(self._device(), self._margin_bytes + spare_bytes)
        return self._ledger.limit_bytes if found is None else found


class _Work:
    def __init__(self, function: str, booked_bytes: int) -> None:
        self.function = function
        self.booked_bytes = booked_bytes
        self.base_bytes: int | None = None  # allocated when it began; None once it is not alone


def _name(function: str) -> str:
    return f"work: {function}"
