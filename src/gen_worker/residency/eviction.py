"""Chooses what to evict so that something else fits: a pure choice among candidates.

The score of a part is its decayed request rate x the seconds to bring it back / its bytes. The parts whose bytes cost
least to lose are evicted first. Least recently used is kept for comparison and for callers who account by hand.
"""

import math
from collections.abc import Sequence
from itertools import combinations
from typing import Protocol

import msgspec

RATE_HALF_LIFE_S = 30 * 60.0
EXHAUSTIVE_UP_TO = 12


class Candidate(msgspec.Struct, frozen=True):
    """Something that may be evicted. `last_use` grows with each use; `rate` is in requests/s, decayed; `reload_s` is
    the time to bring it back from the tier below on this machine.
    """

    name: str
    size_bytes: int
    last_use: float
    rate: float = 0.0
    reload_s: float = 0.0

    @property
    def loss(self) -> float:
        """The expected waiting that dropping it costs: seconds of waiting for each second that passes."""
        return self.rate * self.reload_s

    @property
    def score(self) -> float:
        return self.loss / max(1, self.size_bytes)


class EvictionPolicy(Protocol):
    """Chooses victims."""

    def choose(self, candidates: Sequence[Candidate], need_bytes: int) -> tuple[str, ...] | None:
        """Names of victims whose bytes add up to at least `need_bytes`; None when all candidates together are too small."""
        ...


class LeastRecentlyUsed:
    """Evicts the least recently used first."""

    def choose(self, candidates: Sequence[Candidate], need_bytes: int) -> tuple[str, ...] | None:
        return _first_that_suffice(sorted(candidates, key=lambda c: c.last_use), need_bytes)


class LeastLoss:
    """Evicts the set with the least loss; among equal sets the smaller one. Exact for up to 12 candidates; for more, by
    score, then without the victims that turn out unneeded.
    """

    def choose(self, candidates: Sequence[Candidate], need_bytes: int) -> tuple[str, ...] | None:
        if need_bytes <= 0:
            return ()
        ordered = sorted(candidates, key=lambda c: (c.score, c.last_use))
        greedy = _first_that_suffice(ordered, need_bytes)
        if greedy is None or (len(greedy) == 1 and len(ordered) == 1):
            return greedy
        if len(ordered) <= EXHAUSTIVE_UP_TO:
            return min(
                (
                    (sum(c.loss for c in chosen), sum(c.size_bytes for c in chosen), tuple(c.name for c in chosen))
                    for count in range(1, len(ordered) + 1)
                    for chosen in combinations(ordered, count)
                    if sum(c.size_bytes for c in chosen) >= need_bytes
                ),
            )[2]
        return _pruned([c for c in ordered if c.name in set(greedy)], need_bytes)


def _first_that_suffice(ordered: Sequence[Candidate], need_bytes: int) -> tuple[str, ...] | None:
    chosen = []
    for candidate in ordered:
        if need_bytes <= 0:
            break
        chosen.append(candidate.name)
        need_bytes -= candidate.size_bytes
    return tuple(chosen) if need_bytes <= 0 else None


def _pruned(chosen: Sequence[Candidate], need_bytes: int) -> tuple[str, ...]:
    """The victims without those that are not needed; the most costly ones are spared first."""
    surplus = sum(c.size_bytes for c in chosen) - need_bytes
    kept = []
    for candidate in sorted(chosen, key=lambda c: -c.loss):
        if candidate.size_bytes <= surplus:
            surplus -= candidate.size_bytes
        else:
            kept.append(candidate.name)
    return tuple(kept)


class Rate:
    """Requests a second. Each request loses weight with a half-life of 30 minutes."""

    def __init__(self) -> None:
        self._count = 0.0
        self._at_s = 0.0

    def count(self, now_s: float) -> None:
        self._count = self._faded(now_s) + 1.0
        self._at_s = now_s

    def value(self, now_s: float) -> float:
        return self._faded(now_s) * math.log(2) / RATE_HALF_LIFE_S

    def _faded(self, now_s: float) -> float:
        return self._count * math.exp2(-max(0.0, now_s - self._at_s) / RATE_HALF_LIFE_S)
