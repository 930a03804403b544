"""Decides how many streams a download has, and how many bytes each requests at once. Streams are added while each
addition makes it faster. Pure.
"""

NEAR_S = 0.005  # a server that answers within this time is near: one stream may fill the link, and more only cost processor time
RANGE_BYTES = 64 << 20
NEAR_RANGE_BYTES = 256 << 20
WINDOW_S = 0.25  # between decisions
PAYS = 1.1  # a rate must be this many times the best one so far, or no stream is added


class StreamCount:
    """`count` is the number of streams wanted now; it never falls. Rates are in bytes/s.

    With a distant server each stream adds to the rate until the link is full, so a download begins with `usual`
    streams. With a near one it begins with at most one stream a file.
    """

    def __init__(self, usual: int, most: int, files: int) -> None:
        self.count = max(1, min(usual, most, files))
        self._usual = min(usual, most)
        self._most = most
        self._best = 0.0
        self.far: bool | None = None  # whether a server took longer than NEAR_S; None until one has answered

    @property
    def range_bytes(self) -> int:
        """The most that a stream requests at once. Less for a distant or unknown server, so that one stream does not
        hold up the others' work.
        """
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
        """All streams together had this rate during a window."""
        if rate > self._best * PAYS:
            self._best = rate
            self.count = min(self._most, self.count + (2 if self.far else 1))
