"""How many threads read weight files: more for as long as each addition pays. Pure.

A disk is quickest when several things are asked of it at once, and copying out of the page cache takes a processor's time; how many pay is
a matter of the machine. What a load has found is where the next one begins.
"""

LEAST, FIRST, MOST = 4, 8, 16
# Beside a function that works. Every reader that comes back from the disk asks for the interpreter's lock, and torch gives it away at each
# operation: on an H200, five steps of SDXL took 3.5 times as long beside 8 to 16 readers, 1.9 times beside 4 and 1.3 times beside 2, which
# still bring 8 GB/s out of the page cache.
BESIDE_WORK = 2
STEP = 2
PAYS = 1.05  # times the rate before the last addition


class ReaderCount:
    """`count` is what there should be now. Rates are in bytes a second, of all readers together."""

    def __init__(self, processors: int) -> None:
        self.processors = max(1, processors)
        self.count = min(FIRST, max(LEAST, self.processors // 2))
        self._most = max(self.count, min(MOST, 2 * self.processors))
        self._before: tuple[int, float] | None = None  # the count and rate before the last addition
        self._settled = False

    def begin(self) -> None:
        """A load begins: whether one more addition pays is found out anew, for this may be another disk."""
        self._before, self._settled = None, False

    def allowed(self, working: int) -> int:
        """How many may read now, beside so many functions that work: those come first, and a load always gets on."""
        return max(1, min(BESIDE_WORK, self.count, self.processors - working)) if working else self.count

    def measured(self, rate: float) -> None:
        """`count` readers had this rate together for a while."""
        if self._settled:
            return
        if self._before is not None and rate < self._before[1] * PAYS:
            self.count, self._settled = self._before[0], True
        elif self.count < self._most:
            self._before = (self.count, rate)
            self.count = min(self._most, self.count + STEP)
        else:
            self._settled = True
