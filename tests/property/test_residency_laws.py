"""Laws of the device's memory, in any order of events."""

import contextlib
from collections import Counter
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gen_worker.residency.accounting import ModelCache, ModelLocation
from gen_worker.residency.eviction import Candidate, LeastLoss, LeastRecentlyUsed
from gen_worker.residency.ledger import DoesNotFitError, Ledger, Part, Pin

CANDIDATES = st.lists(
    st.builds(
        Candidate,
        st.text("abcdefghijklmnop", min_size=1, max_size=4),
        st.integers(1, 50),
        st.integers(0, 99),
        st.floats(0, 1, allow_nan=False),
        st.floats(0, 30, allow_nan=False),
    ),
    max_size=15,
    unique_by=lambda c: c.name,
)


@given(CANDIDATES, st.integers(0, 400))
def test_victims_suffice_and_none_is_spared_needlessly(candidates: list[Candidate], need: int) -> None:
    sizes = {c.name: c.size_bytes for c in candidates}
    for policy in (LeastLoss(), LeastRecentlyUsed()):
        chosen = policy.choose(candidates, need)
        if chosen is None:
            assert sum(sizes.values()) < need
            continue
        freed = sum(sizes[name] for name in chosen)
        assert freed >= need
        assert len(set(chosen)) == len(chosen)
        if isinstance(policy, LeastLoss):
            losses = {c.name: c.loss for c in candidates}
            for name in chosen:  # nobody goes who need not
                assert freed - sizes[name] < need or losses[name] == 0


@given(CANDIDATES.filter(lambda c: 0 < len(c) <= 10), st.integers(1, 300))
def test_up_to_twelve_the_choice_is_the_best(candidates: list[Candidate], need: int) -> None:
    chosen = LeastLoss().choose(candidates, need)
    greedy = LeastRecentlyUsed().choose(candidates, need)
    if chosen is not None and greedy is not None:
        losses = {c.name: c.loss for c in candidates}
        assert sum(losses[name] for name in chosen) <= sum(losses[name] for name in greedy) + 1e-9


class LedgerMachine(RuleBasedStateMachine):
    """Random reservations, endings, uses and drops on the pure ledger, beside a model of it: who holds which pins."""

    def __init__(self) -> None:
        super().__init__()
        self.capacity = 100
        self.ledger = Ledger(lambda: self.capacity)
        self.sizes = {f"p{n}": 7 + 6 * n for n in range(8)}
        self.holders: list[tuple[str, ...]] = []  # parts that one load or run has pinned, until it gives them back
        self.pins: list[tuple[Pin, tuple[str, ...]]] = []
        self.loading: set[str] = set()
        self.came: set[str] = set()  # resident for as long as somebody holds them

    def held(self) -> Counter[str]:
        return Counter(name for names in (*self.holders, *[names for _, names in self.pins]) for name in names)

    @rule(names=st.sets(st.sampled_from([f"p{n}" for n in range(8)]), min_size=1, max_size=4))
    def reserve(self, names: set[str]) -> None:
        kept = {name for name in self.held() if name in self.came}
        before = self.ledger.used_bytes
        try:
            new, gone = self.ledger.reserve([Part(name, self.sizes[name]) for name in sorted(names)])
        except DoesNotFitError:
            assert self.ledger.used_bytes == before
            assert sum(self.sizes[name] for name in kept | self.loading | names) > self.capacity
            return
        assert not self.held().keys() & set(gone)
        assert not self.loading.intersection(new), "a part is loaded by one at a time"
        assert not kept.intersection(new)
        self.came.difference_update(gone)
        self.holders.append(tuple(names))
        self.loading.update(new)

    @precondition(lambda self: self.loading)
    @rule(data=st.data(), comes=st.booleans())
    def end_of_load(self, data: st.DataObject, comes: bool) -> None:
        """Also one that others wait for: they hear of it later, and give back later."""
        name = data.draw(st.sampled_from(sorted(self.loading)))
        self.loading.discard(name)
        if comes:
            self.ledger.commit(name)
            self.came.add(name)
        else:
            self.ledger.abort(name)
            assert self.ledger.size_of(name) == 0

    @precondition(lambda self: self.holders)
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        names = self.holders.pop(data.draw(st.integers(0, len(self.holders) - 1)))
        self.ledger.unpin(names)

    @rule(names=st.sets(st.sampled_from([f"p{n}" for n in range(8)]), min_size=1, max_size=3))
    def pin(self, names: set[str]) -> None:
        resident = self.ledger.are_resident(names)
        pin = self.ledger.pin(sorted(names))
        assert (pin is not None) == resident
        if pin is not None:
            self.pins.append((pin, tuple(names)))

    @precondition(lambda self: self.pins)
    @rule(data=st.data(), times=st.integers(1, 3))
    def release(self, data: st.DataObject, times: int) -> None:
        pin, _ = self.pins.pop(data.draw(st.integers(0, len(self.pins) - 1)))
        for _ in range(times):
            pin.release()

    @rule(need=st.integers(0, 120))
    def evict(self, need: int) -> None:
        gone = self.ledger.evict(need)
        assert not self.held().keys() & set(gone)
        self.came.difference_update(gone)

    @rule(capacity=st.integers(60, 140))
    def another_process_takes_or_gives(self, capacity: int) -> None:
        self.capacity = max(capacity, self.ledger.used_bytes)

    @invariant()
    def never_more_than_there_is(self) -> None:
        self.ledger.check()
        assert self.ledger.used_bytes <= self.capacity
        held = self.held()
        for name in self.sizes:
            assert self.ledger.pins_of(name) == held[name], "a pin counts for its own load, and once"
            if held[name] and name in self.came:
                assert self.ledger.are_resident([name])

    def teardown(self) -> None:
        for name in self.loading:
            self.ledger.abort(name)
        for names in self.holders:
            self.ledger.unpin(names)
        for pin, _ in self.pins:
            pin.release()
        self.ledger.evict(1000)
        assert self.ledger.used_bytes == 0, "nothing is held for ever"
        self.ledger.check()


class CacheMachine(RuleBasedStateMachine):
    """Everything that a program may say of its models, in any order, also of those in use."""

    names = st.sampled_from("abcd")
    sizes = st.integers(0, 12)

    def __init__(self) -> None:
        super().__init__()
        self.cache = ModelCache(max_vram_gb=20)
        self.pins: list[tuple[str, Pin]] = []
        self.by_name: Counter[str] = Counter()

    def in_use(self, name: str) -> bool:
        return bool(self.by_name[name]) or any(held == name for held, _ in self.pins)

    @rule(name=names, size=sizes)
    def load(self, name: str, size: int) -> None:
        with contextlib.suppress(ValueError):
            self.cache.mark_loaded_to_vram(name, object(), size)

    @rule(name=names, size=sizes, where=st.sampled_from(list(ModelLocation)))
    def register(self, name: str, size: int, where: ModelLocation) -> None:
        with contextlib.suppress(ValueError):
            self.cache.register_model(name, where, size, object(), Path("/nowhere"))

    @rule(name=names, size=sizes)
    def on_disk(self, name: str, size: int) -> None:
        self.cache.mark_cached_to_disk(name, Path("/nowhere"), size)

    @rule(name=names, progress=st.floats(0, 1))
    def downloading(self, name: str, progress: float) -> None:
        self.cache.mark_downloading(name, progress)

    @rule(name=names, how=st.booleans())
    def pin(self, name: str, how: bool) -> None:
        if not self.cache.is_in_vram(name):
            return
        pin = self.cache.pin(name)
        if how:
            self.pins.append((name, pin))
        else:
            self.by_name[name] += 1

    @rule(name=names)
    def unpin(self, name: str) -> None:
        if self.by_name[name] and not any(held == name for held, _ in self.pins):  # by name goes whichever is the oldest
            self.cache.unpin(name)
            self.by_name[name] -= 1

    @precondition(lambda self: self.pins)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        _, pin = self.pins.pop(data.draw(st.integers(0, len(self.pins) - 1)))
        pin.release()
        pin.release()

    @rule(name=names, forget=st.booleans())
    def unload(self, name: str, forget: bool) -> None:
        if forget:
            assert not (self.cache.unload_model(name) and self.in_use(name))
        elif self.cache.unload_from_vram(name):
            assert not self.in_use(name)

    @rule(count=st.integers(0, 3))
    def evict(self, count: int) -> None:
        self.cache.evict_lru_vram_until_count(count)

    @rule(size=st.one_of(st.floats(max_value=-1e-9), st.sampled_from([float("nan"), float("inf")])), name=names)
    def no_size(self, size: float, name: str) -> None:
        for say in (
            lambda: self.cache.mark_loaded_to_vram(name, object(), size),
            lambda: self.cache.mark_cached_to_disk(name, Path("/nowhere"), size),
            lambda: self.cache.register_model(name, ModelLocation.DISK, size),
            lambda: self.cache.can_fit_in_vram(size),
            lambda: self.cache.mark_downloading(name, size),
            lambda: self.cache.update_download_progress(name, size),
        ):
            with pytest.raises(ValueError, match="expected"):
                say()

    @invariant()
    def the_sums_are_right(self) -> None:
        stats = self.cache.get_stats()
        assert stats.vram_used_gb <= 20
        assert stats.vram_used_gb == pytest.approx(sum(self.cache.size_gb(name) for name in self.cache.get_vram_models()))
        for name in "abcd":
            assert self.cache.is_pinned(name) == self.in_use(name)
            assert not self.in_use(name) or self.cache.is_in_vram(name)

    def teardown(self) -> None:
        for _, pin in self.pins:
            pin.release()
        for name, count in self.by_name.items():
            for _ in range(count):
                self.cache.unpin(name)
        self.cache.evict_lru_vram_until_count(0)
        assert self.cache.get_stats().vram_used_gb == 0, "nothing is held for ever"


TestCache = CacheMachine.TestCase
TestCache.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestLedger = LedgerMachine.TestCase
TestLedger.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
