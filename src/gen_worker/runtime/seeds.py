"""Decides which scheduler address to dial next, and how long to wait before. Pure."""

import random
from collections.abc import Iterable

import msgspec

MAX_HINTS_IN_A_ROW = 5
MAX_LEARNED = 16
FIRST_REDIAL_S = 0.25


class Backoff(msgspec.Struct, frozen=True):
    """Seconds between rounds over all addresses: doubling from `base_s` up to `max_s` (0: no limit), plus a random 0 to `jitter_s`."""

    base_s: float = 5.0
    max_s: float = 60.0
    jitter_s: float = 1.0

    def redial_s(self, short_streams: int, rng: random.Random) -> float:
        """The wait after a stream that had come up; the last `short_streams` streams in a row ended soon. The scheduler
        is there, so the wait is short. It grows with streams that end at once, so that such a scheduler is not
        hammered, but never beyond `base_s`.
        """
        jitter_s = rng.uniform(0, self.jitter_s) if self.jitter_s > 0 else 0.0
        if short_streams <= 0:
            return jitter_s
        return min(self.base_s, FIRST_REDIAL_S * 2.0 ** min(short_streams - 1, 30)) + jitter_s

    def delay_s(self, attempt: int, rng: random.Random) -> float:
        """The wait after `attempt` failed rounds in a row, at least one."""
        jitter_s = rng.uniform(0, self.jitter_s) if self.jitter_s > 0 else 0.0
        grown_s = self.base_s * 2.0 ** min(attempt - 1, 30)
        return (min(grown_s, self.max_s) if self.max_s > 0 else grown_s) + jitter_s


class Seeds:
    """The addresses of schedulers. A round tries each once; a leader named by a scheduler goes first, once."""

    def __init__(self, addresses: Iterable[str]) -> None:
        self._configured = list(dict.fromkeys(address.strip() for address in addresses if address.strip()))
        if not self._configured:
            raise ValueError("no scheduler address; set SCHEDULER_PUBLIC_ADDR to host:port")
        self._learned: list[str] = []
        self._secured: set[str] = set()
        self._round = self.known()
        self._hint: str | None = None
        self._hints_in_a_row = 0

    def known(self) -> list[str]:
        """All addresses; those most recently named as leaders come first."""
        return self._learned + [address for address in self._configured if address not in self._learned]

    def next(self) -> str | None:
        """The address to dial; None when the round is over."""
        if self._hint is not None:
            address, self._hint = self._hint, None
            return address
        return self._round.pop(0) if self._round else None

    def new_round(self, first: str | None = None) -> None:
        """Try all again, `first` before the others."""
        self._hints_in_a_row = 0
        self._round = self.known()
        if first is not None:
            self._round = [first, *(address for address in self._round if address != first)]

    def must_be_secure(self, address: str) -> bool:
        """Whether this address was named over TLS: then it is dialled over TLS, too, whatever its form."""
        return address in self._secured

    def hint(self, address: str, *, secure: bool) -> None:
        """A scheduler says, over TLS or not, that the leader is at `address`. When schedulers send us in circles, the round ends."""
        if secure and address not in self._configured:
            self._secured.add(address)
        self._learned = [address, *(known for known in self._learned if known != address)][:MAX_LEARNED]
        self._secured.intersection_update(self._learned)
        self._hints_in_a_row += 1
        if self._hints_in_a_row <= MAX_HINTS_IN_A_ROW:
            self._hint = address
            self._round = [known for known in self._round if known != address]
        else:
            self._round = []
