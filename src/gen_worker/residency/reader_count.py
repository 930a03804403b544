"""How many threads read weight files: one more as long as each addition pays. Pure.

A disk is fastest with several requests at once, and copying out of the page cache takes processor time. How many
threads pay depends on the machine. The count that one load found is where the next one begins.
"""

LEAST, FIRST, MOST = 4, 8, 16
# While a function runs. A reader keeps a processor busy and asks for the interpreter's lock after each slice. On an H200,
# five steps of SDXL took 3.5 times as long beside 8 to 16 readers, 1.9 times beside 4 and 1.3 times beside 2. Two readers
# still read 9 GB/s out of the page cache. One reads half as fast and slows the steps nearly as much: two threads that do
# nothing but compute already slow them to 1.17 times their time on that machine.
BESIDE_WORK = 2
STEP = 2
PAYS = 1.05  # an addition pays when the rate grows by at least this factor


class ReaderCount:
    """`count` is the number of readers wanted now. Rates are in bytes/s, of all readers together."""

    def __init__(self, processors: int) -> None:
        self.processors = max(1, processors)
        self.count = min(FIRST, max(LEAST, self.processors // 2))
        self._most = max(self.count, min(MOST, 2 * self.processors))
        self._before: tuple[int, float] | None = None  # the count and rate before the last addition
        self._settled = False

    def begin(self) -> None:
        """A load begins. It may read another disk, so find out anew whether one more reader pays."""
        self._before, self._settled = None, False

    def allowed(self, working: int) -> int:
        """How many readers may run beside `working` functions. Functions come first, but a load always gets at least one."""
        return max(1, min(BESIDE_WORK, self.count, self.processors - working)) if working else self.count

    def measured(self, rate: float) -> None:
        """`count` readers together had this rate for a while."""
        if self._settled:
            return
        if self._before is not None and rate < self._before[1] * PAYS:
            self.count, self._settled = self._before[0], True
        elif self.count < self._most:
            self._before = (self.count, rate)
            self.count = min(self._most, self.count + STEP)
        else:
            self._settled = True
