"""How many streams a download keeps: more for as long as each addition pays. Pure."""

NEAR_S = 0.005  # a server that answers within this is next door: one stream may fill the link, and more cost only work
WINDOW_S = 0.25  # between decisions
PAYS = 1.1  # times the best rate so far
MAX_STEP = 2


class StreamCount:
    """`count` is what there should be now. Rates are in bytes a second, times are of any clock that goes on evenly.

    Far away every stream adds until the link is full, so that it begins with `usual` and never goes back. Nearby it begins with one
    a file, tries the next number, and goes back when that did not pay.
    """

    def __init__(self, usual: int, most: int, files: int) -> None:
        self.count = max(1, min(usual, files))
        self._usual = usual
        self._most = most
        self._before = self.count  # the number before the last addition
        self._best = 0.0
        self._far = False
        self._settled = False

    def answered(self, latency_s: float) -> bool:
        """A server took this long to begin its answer; whether that changes `count`."""
        if latency_s <= NEAR_S or self._far:
            return False
        self._far, self._settled = True, False
        self.count = max(self.count, self._usual)
        return True

    @property
    def is_near(self) -> bool:
        """Every stream's share is to be seen: decide only on windows in which all of them were at work."""
        return not self._far

    def measured(self, rate: float) -> None:
        """The streams had this rate together for a window."""
        if self._settled:
            return
        if rate > self._best * PAYS:
            self._best, self._before = rate, self.count
            self.count = min(self._most, self.count + min(self.count, MAX_STEP))
        elif not self._far:
            self.count, self._settled = self._before, True
