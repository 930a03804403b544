"""Predicts which model a worker will use next, from which model followed which, and decides whether to load it ahead. Pure."""

from collections.abc import Mapping

import msgspec

FADE = 0.9  # older counts are multiplied by this whenever a successor is counted
MIN_SEEN = 2.0  # a model needs this many counted successors before one is predicted
MIN_PROBABILITY = 0.5
HARM_FACTOR = 3.0  # the expected gain must be this many times the expected loss of other models
DOUBT = 1.0  # added to the sum of counts, so that few observations give a low probability
MAX_MODELS = 1000
USED_WITHIN_S = 600.0
MIN_USED_SHARE = 0.5  # loading ahead stops when less than this share of its bytes was used
ENOUGH_TO_JUDGE = 3.0
FORGIVEN = 0.99  # each run multiplies the count of failures by this: after about a hundred runs, loading ahead is tried again


class Foreseen(msgspec.Struct, frozen=True):
    """A model that is likely to be used next."""

    name: str
    probability: float


class Foresight:
    """Counts transitions from the models of one run to those of the next."""

    def __init__(self) -> None:
        self._after: dict[str, dict[str, float]] = {}
        self._last = ""

    def used(self, name: str) -> None:
        """A run with this model has ended."""
        if self._last:
            row = self._after.pop(self._last, {})
            self._after[self._last] = {known: count * FADE for known, count in row.items() if count > 0.01}
            self._after[self._last][name] = self._after[self._last].get(name, 0.0) + 1.0
            while len(self._after) > MAX_MODELS:
                del self._after[next(iter(self._after))]
        self._last = name

    def next(self) -> list[Foreseen]:
        """The models likely to follow the last run."""
        row: Mapping[str, float] = self._after.get(self._last, {})
        seen = sum(row.values())
        if seen < MIN_SEEN * FADE:
            return []
        found = [Foreseen(name, count / (seen + DOUBT)) for name, count in row.items()]
        return [item for item in found if item.probability >= MIN_PROBABILITY]  # one at most: with `DOUBT` they add up to less than 1


def is_worth_it(probability: float, reload_s: float, harm_s: float | None) -> bool:
    """Whether to load a model ahead. Compares the seconds that its run is likely to gain with the seconds that other
    models lose if the run does not come. If the run comes, it would have taken the room anyway.
    """
    if probability < MIN_PROBABILITY or harm_s is None:
        return False
    return probability * reload_s > HARM_FACTOR * (1.0 - probability) * harm_s


class Tally:
    """Counts the bytes that were loaded ahead, and how many of them a run used in time."""

    def __init__(self) -> None:
        self.loaded_bytes = 0
        self.used_bytes = 0
        self._open: dict[str, tuple[int, float]] = {}
        # of the latest loads: their number, their bytes, and the bytes that were used
        self._count = self._settled = self._settled_used = 0.0

    def loaded(self, name: str, size_bytes: int, now_s: float) -> None:
        self._expire(now_s)
        self.loaded_bytes += size_bytes
        self._open[name] = (size_bytes, now_s)

    def used(self, name: str, now_s: float) -> None:
        """A run uses this model."""
        self._expire(now_s)
        if name in self._open:
            size_bytes, _ = self._open.pop(name)
            self.used_bytes += size_bytes
            self._settle(size_bytes, size_bytes)

    def gone(self, name: str) -> None:
        """The model left the device again."""
        if name in self._open:
            self._settle(self._open.pop(name)[0], 0)

    @property
    def pays(self) -> bool:
        """Whether a large enough share was used lately."""
        return self._count < ENOUGH_TO_JUDGE or self._settled_used >= MIN_USED_SHARE * self._settled

    def forgive(self) -> None:
        """A run has ended: past failures count a little less."""
        self._count *= FORGIVEN

    def _expire(self, now_s: float) -> None:
        for name, (_, at_s) in list(self._open.items()):
            if now_s - at_s > USED_WITHIN_S:
                self.gone(name)

    def _settle(self, size_bytes: int, used_bytes: int) -> None:
        self._count = self._count * FADE + 1
        self._settled = self._settled * FADE + size_bytes
        self._settled_used = self._settled_used * FADE + used_bytes
