"""The ledger of a device, step by step: what is reserved, pinned, dropped, and the error when nothing fits."""

from collections.abc import Sequence

import pytest

from gen_worker.residency.eviction import Candidate, LeastRecentlyUsed, Rate
from gen_worker.residency.ledger import DoesNotFitError, Ledger, Part


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def ledger(capacity_bytes: int = 100, clock: Clock | None = None) -> Ledger:
    return Ledger(lambda: capacity_bytes, LeastRecentlyUsed(), clock or Clock())


def load(books: Ledger, name: str, size_bytes: int, reload_s: float = 0.0) -> list[str]:
    """Load a part and let go of it; what had to go for it."""
    missing, gone = books.reserve([Part(name, size_bytes, reload_s)])
    assert missing == [name]
    books.commit(name)
    books.unpin([name])
    return gone


def test_reserving_takes_the_oldest_that_nobody_uses() -> None:
    books = ledger()
    assert load(books, "a", 40) == []
    assert load(books, "b", 60) == []
    assert books.used_bytes == 100
    assert load(books, "c", 10) == ["a"]
    assert (books.used_bytes, books.size_of("a"), books.size_of("b"), books.size_of("c")) == (70, 0, 60, 10)
    books.used(["b"])
    assert load(books, "d", 35) == ["c"], "b was used later"
    assert books.plan(5) == ()
    assert books.plan(6) == ("b",)
    assert books.plan(6, keep=("b",)) == ("d",)
    assert books.plan(101) is None
    books.check()


def test_what_is_there_is_pinned_and_not_loaded_again() -> None:
    books = ledger()
    load(books, "a", 40)
    assert books.reserve([Part("a", 40), Part("b", 60)]) == (["b"], [])
    assert [books.pins_of(name) for name in "abc"] == [1, 1, 0]
    assert (books.is_pinned("a"), books.is_pinned("c")) == (True, False)
    assert (books.are_resident("a"), books.are_resident("ab"), books.are_resident("c"), books.are_resident("")) == (
        True,
        False,
        False,
        True,
    )
    books.commit("b", 55)
    assert books.used_bytes == 95
    books.commit("b")
    assert books.used_bytes == 95
    books.unpin(["a", "nothing"])
    assert books.drop(["a", "b", "nothing"]) == ["a"], "b is pinned"
    books.unpin(["b", "b"])
    assert books.pins_of("b") == 0
    assert books.drop("b") == ["b"]


def test_nothing_is_taken_when_it_cannot_fit() -> None:
    books = ledger(2_500_000_000)
    load(books, "a", 500_000_000)
    books.reserve([Part("held", 1_250_000_000)])
    books.reserve([Part("wanted", 500_000_000)])
    with pytest.raises(DoesNotFitError) as raised:
        books.reserve([Part("b", 2_000_000_000), Part("wanted", 500_000_000)])
    assert str(raised.value) == "2.00 GB do not fit: 2.50 GB in all, 1.25 GB of it used by models of running runs"
    assert raised.value.need_bytes == 2_000_000_000
    assert books.size_of("a") == 500_000_000
    assert books.pins_of("wanted") == 1


def test_an_aborted_part_is_void_until_its_pins_are_back() -> None:
    books = ledger()
    books.reserve([Part("a", 80)])
    books.reserve([Part("a", 80)])
    books.abort("a")
    books.abort("nothing")
    assert (books.used_bytes, books.pins_of("a")) == (0, 2)
    books.check()
    assert books.reserve([Part("a", 70)]) == (["a"], [])
    assert (books.used_bytes, books.pins_of("a")) == (70, 3)
    books.commit("a")
    books.abort("a")
    assert books.used_bytes == 70, "it is resident"
    books.unpin(["a"] * 3)
    assert books.plan(31) == ("a",)
    books.reserve([Part("b", 10)])
    books.unpin(["b"])
    books.abort("b")
    assert books.reserve([Part("b", 20)]) == (["b"], [])
    books.abort("b")
    books.unpin(["b"])
    assert books.size_of("b") == books.pins_of("b") == 0
    assert not books.drop(["b"]), "it is gone with its last pin"


def test_what_is_reserved_is_nobodys_victim() -> None:
    books = ledger()
    books.reserve([Part("a", 50)])
    books.unpin(["a"])
    assert books.plan(60) is None
    books.commit("a")
    assert books.plan(60) == ("a",)


def test_a_part_grows_at_the_cost_of_others() -> None:
    books = ledger(2_000_000_000)
    load(books, "a", 500_000_000)
    load(books, "b", 500_000_000)
    books.reserve([Part("pinned", 250_000_000)])
    assert books.resize("a", 1_250_000_000) == []
    assert books.resize("a", 1_500_000_000) == ["b"], "a itself, which was used longest ago, stays"
    assert books.used_bytes == 1_750_000_000
    assert books.resize("a", 100) == []
    with pytest.raises(DoesNotFitError) as raised:
        books.resize("a", 1_800_000_000)
    assert str(raised.value) == "1.80 GB do not fit: 2.00 GB in all, 0.25 GB of it used by models of running runs"
    books.reserve([Part("a", 100)])
    with pytest.raises(DoesNotFitError, match=r"0\.25 GB of it used"):
        books.resize("a", 1_800_000_000)
    assert books.size_of("a") == 100


def test_pins() -> None:
    books = ledger()
    load(books, "a", 10)
    load(books, "b", 10)
    assert books.pin(("a", "c")) is None
    assert books.pins_of("a") == 0
    pin = books.pin(("a", "b", "a"))
    assert pin is not None
    assert (books.pins_of("a"), books.pins_of("b")) == (1, 1)
    pin.release()
    pin.release()
    assert (books.pins_of("a"), books.pins_of("b")) == (0, 0)
    with books.pin(("a",)) or pin:
        assert books.pins_of("a") == 1
    assert books.pins_of("a") == 0


def test_limits() -> None:
    books = ledger(-5)
    assert (books.limit_bytes, books.capacity_bytes, books.wish_bytes) == (0, 0, 0)
    books = ledger(100)
    bound, wish = [100], [100]
    books.heed(bound=lambda: bound[0], wish=lambda: wish[0])
    assert (books.limit_bytes, books.capacity_bytes, books.wish_bytes) == (100, 100, 100)
    bound[0], wish[0] = 80, 60
    assert (books.limit_bytes, books.capacity_bytes, books.wish_bytes) == (100, 80, 60)
    load(books, "a", 50)
    assert load(books, "b", 20) == ["a"], "rather than beyond the wish"
    assert load(books, "c", 70) == ["b"], "there is no other way"
    assert books.trim() == ["c"]
    assert books.trim() == []
    load(books, "d", 60)
    assert books.trim() == []
    bound[0] = wish[0] = -1
    assert (books.capacity_bytes, books.wish_bytes) == (0, 0)


def test_evicting_takes_what_is_asked_for_or_all() -> None:
    books = ledger()
    for name in "abc":
        load(books, name, 20)
    books.reserve([Part("d", 20)])
    assert books.evict(21) == ["a", "b"]
    assert books.evict(1000) == ["c"]
    assert books.evict(1) == []
    assert books.size_of("d") == 20


def test_harm_is_what_others_would_wait() -> None:
    clock = Clock()
    books = ledger(clock=clock)
    load(books, "a", 60, reload_s=10.0)
    for _ in range(900):
        books.used(["a"])
    rate = 900 * 0.6931471805599453 / 1800
    assert books.harm_s(40) == 0.0
    assert books.harm_s(41) == pytest.approx(10.0), "asked for within a minute for sure"
    assert books.harm_s(41, horizon_s=1.0) == pytest.approx(rate * 10.0)
    clock.now_s += 1800.0
    assert books.harm_s(41, horizon_s=1.0) == pytest.approx(rate * 5.0)
    assert books.harm_s(101) is None


def test_rates_fade() -> None:
    rate = Rate()
    assert rate.value(50.0) == 0.0
    rate.count(100.0)
    rate.count(100.0)
    assert rate.value(100.0) == pytest.approx(2 * 0.6931471805599453 / 1800)
    assert rate.value(1900.0) == pytest.approx(0.6931471805599453 / 1800)
    assert rate.value(0.0) == rate.value(100.0), "no clock goes back"
    rate.count(1900.0)
    assert rate.value(1900.0) == pytest.approx(2 * 0.6931471805599453 / 1800)


@pytest.mark.parametrize("size", [-1, 1.0, True, float("nan"), "1", None])
def test_sizes_are_whole_numbers(size: object) -> None:
    books = ledger()
    load(books, "a", 10)
    expected = f"part 'a' of {size!r} bytes: expected a whole number from 0 up"
    for act in (lambda: Part("a", size), lambda: books.resize("a", size)):  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="expected a whole number") as raised:
            act()
        assert str(raised.value) == expected
    if size is not None:
        with pytest.raises(ValueError, match="expected a whole number"):
            books.commit("a", size)  # type: ignore[arg-type]
    assert books.used_bytes == 10
    with pytest.raises(ValueError, match="expected a whole number") as raised:
        Part("n" * 200, -1)
    assert repr("n" * 100) in str(raised.value)
    assert "n" * 101 not in str(raised.value)


def test_scores() -> None:
    part = Candidate("a", 50, 1.0, 2.0, 3.0)
    assert (part.loss, part.score) == (6.0, 0.12)
    assert Candidate("a", 0, 1.0, 2.0, 3.0).score == 6.0


def test_what_the_policy_is_shown() -> None:
    clock = Clock()
    shown: list[Candidate] = []

    class Policy(LeastRecentlyUsed):
        def choose(self, candidates: Sequence[Candidate], need_bytes: int) -> tuple[str, ...] | None:
            shown[:] = candidates
            return super().choose(candidates, need_bytes)

    books = Ledger(lambda: 100, Policy(), clock)
    load(books, "a", 60, reload_s=7.0)
    books.used(["a"])
    assert books.plan(50) == ("a",)
    rate = Rate()
    rate.count(clock())
    assert shown == [Candidate("a", 60, 2, rate.value(clock()), 7.0)]
