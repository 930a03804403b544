"""How many streams a download has: more for as long as each addition pays. Pure."""

NEAR_S = 0.005  # a server that answers within this is next door: one stream may fill the link, and more cost only work
WINDOW_S = 0.25  # between decisions
PAYS = 1.1  # times the best rate so far


class StreamCount:
    """`count` is what there should be now; it never falls. Rates are in bytes a second.

    Far away every stream adds until the link is full, so that it begins with `usual`; nearby with one a file at most.
    """

    def __init__(self, usual: int, most: int, files: int) -> None:
        self.count = max(1, min(usual, most, files))
        self._usual = min(usual, most)
        self._most = most
        self._best = 0.0
        self._far = False

    def answered(self, latency_s: float) -> bool:
        """A server took this long to begin its answer; whether that changes `count`."""
        if latency_s <= NEAR_S or self._far:
            return False
        self._far = True
        self.count, before = max(self.count, self._usual), self.count
        return self.count > before

    def measured(self, rate: float) -> None:
        """The streams had this rate together for a window."""
        if rate > self._best * PAYS:
            self._best = rate
            self.count = min(self._most, self.count + (2 if self._far else 1))
