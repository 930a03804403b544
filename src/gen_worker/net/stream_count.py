"""How many streams a download has, and how much each asks for at once: more streams for as long as each addition pays. Pure."""

NEAR_S = 0.005  # a server that answers within this is next door: one stream may fill the link, and more cost only work
RANGE_BYTES = 64 << 20
NEAR_RANGE_BYTES = 256 << 20
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
        self.far: bool | None = None  # whether a server took longer than NEAR_S; None until one has answered

    @property
    def range_bytes(self) -> int:
        """The most that a stream asks for at once. Far away, or nobody knows yet: not so much that one stream holds up the others' work."""
        return NEAR_RANGE_BYTES if self.far is False else RANGE_BYTES

    def answered(self, latency_s: float) -> bool:
        """A server took this long to begin its answer; whether that changes `count`."""
        if latency_s <= NEAR_S or self.far:
            self.far = bool(self.far)
            return False
        self.far = True
        self.count, before = max(self.count, self._usual), self.count
        return self.count > before

    def measured(self, rate: float) -> None:
        """The streams had this rate together for a window."""
        if rate > self._best * PAYS:
            self._best = rate
            self.count = min(self._most, self.count + (2 if self.far else 1))
