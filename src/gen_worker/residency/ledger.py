"""Accounts for the bytes of one device: what is reserved, resident and pinned. It decides; other modules move the
bytes.

The unit is the part, such as a text encoder or a UNet. A part is there once, however many models refer to it. Nothing
may load without a reservation, and a reservation names the parts that had to be evicted for it. The sum never exceeds
the capacity.

    missing --reserve--> reserved --commit--> resident --drop, evict, or evicted for another part--> missing
                            |
                            +--abort--> void (0 bytes; until its last pin is given back) --> missing, or reserved anew

Laws, which tests/property/test_residency_laws.py tries to break:
- A pinned part is never evicted. Each pin is given back once. An entry stays while it has pins, also after `abort`, so
  that a late return of a pin can never count against a later load of the same part.
- Sizes are whole numbers, not negative; `used_bytes` is their sum.
"""

import threading
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Self

import msgspec

from gen_worker.residency.eviction import Candidate, EvictionPolicy, LeastLoss, Rate

HORIZON_S = 60.0  # how far ahead the ledger looks: a request for an evicted part within this time counts as harm


class Part(msgspec.Struct, frozen=True):
    """A piece of a model. `reload_s`: seconds to bring it back once it was evicted."""

    part_id: str
    size_bytes: int
    reload_s: float = 0.0

    def __post_init__(self) -> None:
        _check_size(self.size_bytes, self.part_id)


class DoesNotFitError(Exception):
    """The parts do not fit, even with everything evictable gone."""

    def __init__(self, need_bytes: int, capacity_bytes: int, held_bytes: int) -> None:
        super().__init__(
            f"{need_bytes / 1e9:.2f} GB do not fit: {capacity_bytes / 1e9:.2f} GB in all, "
            f"{held_bytes / 1e9:.2f} GB of it used by models of running runs"
        )
        self.need_bytes = need_bytes


class _Entry:
    def __init__(self, part: Part, use: int) -> None:
        self.size_bytes = part.size_bytes
        self.reload_s = part.reload_s
        self.is_resident = False  # otherwise it is reserved or void
        self.is_void = False
        self.last_use = use
        self.pins = 0
        self.rate = Rate()


class Pin:
    """Parts that stay on the device until `release` or the end of the `with` block. A second release does nothing."""

    def __init__(self, give_back: Callable[[], None]) -> None:
        self._give_back: Callable[[], None] | None = give_back

    def release(self) -> None:
        give_back, self._give_back = self._give_back, None
        if give_back is not None:
            give_back()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.release()


class Ledger:
    """Safe from any thread. `capacity_bytes` may change at any time: every decision reads it anew."""

    def __init__(
        self, capacity_bytes: Callable[[], int], policy: EvictionPolicy | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._capacity_bytes = capacity_bytes
        self._bound: Callable[[], int] | None = None
        self._wish: Callable[[], int] | None = None
        self._policy = policy or LeastLoss()
        self._clock = clock
        self._lock = threading.RLock()
        self._entries: dict[str, _Entry] = {}
        self._uses = 0

    def heed(self, *, bound: Callable[[], int], wish: Callable[[], int]) -> None:
        """The device is known now. `bound`: hard limit in bytes, as the device reports it. `wish`: soft limit in bytes;
        loads may exceed it when nothing can be evicted. Both are called for each decision.
        """
        self._bound, self._wish = bound, wish

    @property
    def limit_bytes(self) -> int:
        """The most bytes that may ever be used."""
        return max(0, self._capacity_bytes())

    @property
    def capacity_bytes(self) -> int:
        """The most bytes that may be used now; other processes may hold part of the device."""
        bound = self._bound
        return self.limit_bytes if bound is None else max(0, min(self._capacity_bytes(), bound()))

    @property
    def wish_bytes(self) -> int:
        """Soft limit in bytes. The rest is left for the functions' own work; a model that would not fit otherwise may exceed it."""
        wish = self._wish
        return self.capacity_bytes if wish is None else max(0, min(self._capacity_bytes(), wish()))

    @property
    def used_bytes(self) -> int:
        with self._lock:
            return sum(entry.size_bytes for entry in self._entries.values())

    def reserve(self, parts: Sequence[Part]) -> tuple[list[str], list[str]]:
        """Pin those parts that are resident and reserve the others. Returns the ids to load and the ids that were
        evicted. All or nothing.

        `DoesNotFitError` when room cannot be made. Each part stays pinned until `unpin`, also after `abort`.
        """
        with self._lock:
            wanted = {part.part_id: part for part in parts}
            missing = [part for part in wanted.values() if (entry := self._entries.get(part.part_id)) is None or entry.is_void]
            need = sum(part.size_bytes for part in missing)
            victims = self.plan(need, keep=wanted)
            if victims is None:
                raise DoesNotFitError(need, self.capacity_bytes, self._held_bytes(wanted))
            for victim in victims:
                del self._entries[victim]
            for part in missing:
                self._uses += 1
                before = self._entries.get(part.part_id)
                entry = self._entries[part.part_id] = _Entry(part, self._uses)
                entry.pins = before.pins if before is not None else 0  # pins of holders that have not yet noticed the abort
            for part_id in wanted:
                self._entries[part_id].pins += 1
            return [part.part_id for part in missing], list(victims)

    def commit(self, part_id: str, size_bytes: int | None = None) -> None:
        """A reserved part is resident now; `size_bytes` is its measured size."""
        _check_size(0 if size_bytes is None else size_bytes, part_id)
        with self._lock:
            entry = self._entries[part_id]
            entry.is_resident = True
            if size_bytes is not None:
                entry.size_bytes = size_bytes

    def resize(self, part_id: str, size_bytes: int) -> list[str]:
        """Change a part's size; the ids that were evicted for it. `DoesNotFitError` leaves everything as it was."""
        _check_size(size_bytes, part_id)
        with self._lock:
            more = size_bytes - self._entries[part_id].size_bytes
            victims = self.plan(more, keep=(part_id,))
            if victims is None:
                raise DoesNotFitError(size_bytes, self.capacity_bytes, self._held_bytes((part_id,)))
            self.drop(victims)
            self._entries[part_id].size_bytes = size_bytes
            return list(victims)

    def abort(self, part_id: str) -> None:
        """A reserved part failed to load: its bytes are free again. Its pins are given back as usual."""
        with self._lock:
            entry = self._entries.get(part_id)
            if entry is None or entry.is_resident:
                return
            if not entry.pins:
                del self._entries[part_id]
            entry.size_bytes, entry.is_void = 0, True

    def unpin(self, part_ids: Iterable[str]) -> None:
        """Give back one pin of each part, as `reserve` took them; only once."""
        with self._lock:
            for part_id in part_ids:
                entry = self._entries.get(part_id)
                if entry is not None and entry.pins > 0:
                    entry.pins -= 1
                    if entry.is_void and not entry.pins:
                        del self._entries[part_id]

    def pin(self, part_ids: Collection[str]) -> Pin | None:
        """Pin all these parts until the pin is released. None, and nothing pinned, unless all are resident."""
        with self._lock:
            if not self.are_resident(part_ids):
                return None
            pinned = tuple(dict.fromkeys(part_ids))
            for part_id in pinned:
                self._entries[part_id].pins += 1
            return Pin(lambda: self.unpin(pinned))

    def used(self, part_ids: Iterable[str]) -> None:
        """Count one use of each part."""
        now_s = self._clock()
        with self._lock:
            for part_id in part_ids:
                entry = self._entries.get(part_id)
                if entry is not None:
                    self._uses += 1
                    entry.last_use = self._uses
                    entry.rate.count(now_s)

    def drop(self, part_ids: Iterable[str]) -> list[str]:
        """Drop those of these parts that nobody has pinned; the ids dropped."""
        with self._lock:
            gone = [part_id for part_id in part_ids if (entry := self._entries.get(part_id)) is not None and not entry.pins]
            for part_id in gone:
                del self._entries[part_id]
            return gone

    def evict(self, need_bytes: int) -> list[str]:
        """Evict unpinned parts of at least `need_bytes` in sum, or all of them; the ids evicted."""
        with self._lock:
            candidates = self._candidates(())
            chosen = self._policy.choose(candidates, need_bytes)
            return self.drop(chosen if chosen is not None else [candidate.name for candidate in candidates])

    def trim(self) -> list[str]:
        """Evict unpinned parts until usage is down to `wish_bytes`; the ids evicted."""
        with self._lock:
            over = self.used_bytes - self.wish_bytes
            return self.evict(over) if over > 0 else []

    def plan(self, need_bytes: int, keep: Collection[str] = ()) -> tuple[str, ...] | None:
        """The parts to evict so that `need_bytes` more fit; None when they cannot fit."""
        with self._lock:
            for capacity in (self.wish_bytes, self.capacity_bytes):
                short = need_bytes - (capacity - self.used_bytes)
                if short <= 0:
                    return ()
                victims = self._policy.choose(self._candidates(keep), short)
                if victims is not None:
                    return victims
            return None

    def harm_s(self, need_bytes: int, horizon_s: float = HORIZON_S) -> float | None:
        """Seconds that making this room would cost other models within the horizon; None when room cannot be made."""
        with self._lock:
            victims = self.plan(need_bytes)
            if victims is None:
                return None
            now_s, gone = self._clock(), [self._entries[name] for name in victims]
            return sum(min(1.0, entry.rate.value(now_s) * horizon_s) * entry.reload_s for entry in gone)

    def are_resident(self, part_ids: Iterable[str]) -> bool:
        with self._lock:
            return all((entry := self._entries.get(part_id)) is not None and entry.is_resident for part_id in part_ids)

    def is_pinned(self, part_id: str) -> bool:
        with self._lock:
            entry = self._entries.get(part_id)
            return entry is not None and entry.pins > 0

    def size_of(self, part_id: str) -> int:
        with self._lock:
            entry = self._entries.get(part_id)
            return entry.size_bytes if entry is not None else 0

    def check(self) -> None:
        """Raise `AssertionError` when the sums are wrong. For tests."""
        with self._lock:
            for entry in self._entries.values():
                assert entry.pins >= 0
                assert entry.size_bytes >= 0
                assert not entry.is_void or (entry.pins and not entry.size_bytes and not entry.is_resident)
            assert self.used_bytes == sum(entry.size_bytes for entry in self._entries.values())

    def pins_of(self, part_id: str) -> int:
        with self._lock:
            entry = self._entries.get(part_id)
            return entry.pins if entry is not None else 0

    def _candidates(self, keep: Collection[str]) -> list[Candidate]:
        now_s = self._clock()
        return [
            Candidate(name, entry.size_bytes, entry.last_use, entry.rate.value(now_s), entry.reload_s)
            for name, entry in self._entries.items()
            if entry.is_resident and not entry.pins and name not in keep
        ]

    def _held_bytes(self, but: Collection[str]) -> int:
        return sum(entry.size_bytes for name, entry in self._entries.items() if entry.pins and name not in but)


def _check_size(size_bytes: int, part_id: str) -> None:
    """Refuse a size that is not a whole number from 0 up: a negative size or a rounded NaN would make every later sum wrong."""
    if isinstance(size_bytes, bool) or not isinstance(size_bytes, int) or size_bytes < 0:
        raise ValueError(f"part {part_id[:100]!r} of {size_bytes!r} bytes: expected a whole number from 0 up")
