"""What of a device is kept free of models for the functions' own work: the margin that was set, and more where they needed more."""

from collections.abc import Callable

from gen_worker.content.measured import Measurements
from gen_worker.residency.device import Device
from gen_worker.residency.devices import CONTEXT_BYTES, bound_of
from gen_worker.residency.ledger import Ledger

TELLING = 0.9  # of what is known: less than that and it falls, in between there is nothing to note


class Headroom:
    """Of one device. What a function needs is measured while it runs alone and no model comes or goes; side by side nobody knows whose a
    peak was. Lives on one event loop; `device` is None for as long as nobody has got it.
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
        """What is needed beyond the margin: by those that run now, or by the hungriest alone."""
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
            work.base_bytes = self._take_peak()  # right after another it is what is allocated now
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
        """Of models on the device, with so much more than the margin left free."""
        found = bound_of(self._device(), self._margin_bytes + spare_bytes)
        return self._ledger.limit_bytes if found is None else found


class _Work:
    def __init__(self, function: str, booked_bytes: int) -> None:
        self.function = function
        self.booked_bytes = booked_bytes
        self.base_bytes: int | None = None  # allocated when it began; None once it is not alone


def _name(function: str) -> str:
    return f"work: {function}"
