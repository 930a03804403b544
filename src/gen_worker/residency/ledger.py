"""The bytes of one device: what is reserved, what is resident, who uses it. It accounts and decides; others move bytes.

The unit is the part (a text encoder, a UNet): it is there once, however many models refer to it. Nothing may load without a reservation,
and a reservation names what had to go for it. The sum never exceeds the capacity.

    missing --reserve--> reserved --commit--> resident --drop, evict, or as somebody's victim--> missing
                            |
                            +--abort--> void (0 bytes; until its last pin is given back) --> missing, or reserved anew

Laws, which tests/property/test_residency_laws.py tries to break:
- What has pins never goes. Each pin is given back once; an entry stays for as long as it has any, also after `abort`, so that a pin given
  back late can never count against a later load of the same part.
- Sizes are whole numbers from 0 up; `used_bytes` is their sum.
"""

import threading
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Self

import msgspec

from gen_worker.residency.eviction import Candidate, EvictionPolicy, LeastLoss, Rate

HORIZON_S = 60.0  # how far ahead a request for what has gone counts as harm


class Part(msgspec.Struct, frozen=True):
    """A piece of a model. `reload_s`: how long it takes to bring it back once it has gone."""

    part_id: str
    size_bytes: int
    reload_s: float = 0.0

    def __post_init__(self) -> None:
        _check_size(self.size_bytes, self.part_id)


class DoesNotFitError(Exception):
    """Even with everything evictable gone there is no room."""

    def __init__(self, need_bytes: int, capacity_bytes: int, held_bytes: int) -> None:
        super().__init__(
            f"{need_bytes / 1e9:.2f} GB do not fit: {capacity_bytes / 1e9:.2f} GB in all, "
            f"{held_bytes / 1e9:.2f} GB of it held by models in use"
        )
        self.need_bytes = need_bytes


class _Entry:
    def __init__(self, part: Part, use: int) -> None:
        self.size_bytes = part.size_bytes
        self.reload_s = part.reload_s
        self.is_resident = False  # else reserved, or void
        self.is_void = False
        self.last_use = use
        self.pins = 0
        self.rate = Rate()


class Pin:
    """Parts that stay where they are until `release`, or the end of the `with` block. Giving back twice counts once."""

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
    """Safe from any thread. `capacity_bytes` may change at any time: it is looked at for each decision."""

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
        """The device is known now. `bound`: hard limit in bytes, as the device says. `wish`: soft limit in bytes, which loads may exceed
        when nothing can be evicted. Both are asked for each decision."""
        self._bound, self._wish = bound, wish

    @property
    def limit_bytes(self) -> int:
        """The most that there may ever be."""
        return max(0, self._capacity_bytes())

    @property
    def capacity_bytes(self) -> int:
        """What there may be now: other processes may hold a part of the device."""
        bound = self._bound
        return self.limit_bytes if bound is None else max(0, min(self._capacity_bytes(), bound()))

    @property
    def wish_bytes(self) -> int:
        """What there should be at most: the functions' own work needs the rest. More only where a model would not fit otherwise."""
        wish = self._wish
        return self.capacity_bytes if wish is None else max(0, min(self._capacity_bytes(), wish()))

    @property
    def used_bytes(self) -> int:
        with self._lock:
            return sum(entry.size_bytes for entry in self._entries.values())

    def reserve(self, parts: Sequence[Part]) -> tuple[list[str], list[str]]:
        """Pin what is resident of these and reserve the rest: ids to load, and ids that have gone for them. All of it or nothing.

        `DoesNotFitError` when room cannot be made. Each part is pinned until `unpin`, also after `abort`.
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
                entry.pins = before.pins if before is not None else 0  # of those who have not heard of the abort yet
            for part_id in wanted:
                self._entries[part_id].pins += 1
            return [part.part_id for part in missing], list(victims)

    def commit(self, part_id: str, size_bytes: int | None = None) -> None:
        """A reserved part is resident now, with its real size."""
        _check_size(0 if size_bytes is None else size_bytes, part_id)
        with self._lock:
            entry = self._entries[part_id]
            entry.is_resident = True
            if size_bytes is not None:
                entry.size_bytes = size_bytes

    def resize(self, part_id: str, size_bytes: int) -> list[str]:
        """Account a part anew; what had to go for it. `DoesNotFitError` leaves all as it was."""
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
        """A reserved part did not come: its bytes are free again. Who pinned it, gives his pin back as ever."""
        with self._lock:
            entry = self._entries.get(part_id)
            if entry is None or entry.is_resident:
                return
            if not entry.pins:
                del self._entries[part_id]
            entry.size_bytes, entry.is_void = 0, True

    def unpin(self, part_ids: Iterable[str]) -> None:
        """Give back one pin of each, as `reserve` has taken them; each once."""
        with self._lock:
            for part_id in part_ids:
                entry = self._entries.get(part_id)
                if entry is not None and entry.pins > 0:
                    entry.pins -= 1
                    if entry.is_void and not entry.pins:
                        del self._entries[part_id]

    def pin(self, part_ids: Collection[str]) -> Pin | None:
        """Keep all of these where they are until the pin is released; None, and nothing pinned, unless all are resident."""
        with self._lock:
            if not self.are_resident(part_ids):
                return None
            pinned = tuple(dict.fromkeys(part_ids))
            for part_id in pinned:
                self._entries[part_id].pins += 1
            return Pin(lambda: self.unpin(pinned))

    def used(self, part_ids: Iterable[str]) -> None:
        """Count a use of each."""
        now_s = self._clock()
        with self._lock:
            for part_id in part_ids:
                entry = self._entries.get(part_id)
                if entry is not None:
                    self._uses += 1
                    entry.last_use = self._uses
                    entry.rate.count(now_s)

    def drop(self, part_ids: Iterable[str]) -> list[str]:
        """Forget those that nobody uses; which ones."""
        with self._lock:
            gone = [part_id for part_id in part_ids if (entry := self._entries.get(part_id)) is not None and not entry.pins]
            for part_id in gone:
                del self._entries[part_id]
            return gone

    def evict(self, need_bytes: int) -> list[str]:
        """Drop unpinned parts worth at least `need_bytes`, or all of them; which ones."""
        with self._lock:
            candidates = self._candidates(())
            chosen = self._policy.choose(candidates, need_bytes)
            return self.drop(chosen if chosen is not None else [candidate.name for candidate in candidates])

    def trim(self) -> list[str]:
        """Drop of what nobody uses as much as there is above `wish_bytes`; which ones."""
        with self._lock:
            over = self.used_bytes - self.wish_bytes
            return self.evict(over) if over > 0 else []

    def plan(self, need_bytes: int, keep: Collection[str] = ()) -> tuple[str, ...] | None:
        """What would have to go so that `need_bytes` more fit; None when they cannot."""
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
        """Seconds that room for so much more would cost others within the horizon; None when there is none."""
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
        """`AssertionError` when the sums are wrong; for tests."""
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
    """A negative size, or a NaN that was rounded somewhere, would make every sum after it wrong."""
    if isinstance(size_bytes, bool) or not isinstance(size_bytes, int) or size_bytes < 0:
        raise ValueError(f"part {part_id[:100]!r} of {size_bytes!r} bytes: expected a whole number from 0 up")
