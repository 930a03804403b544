"""Operations that wait to be written keep their order, whatever fails."""

from typing import Any

import pytest

from gen_orchestrator.store.base import DeposedError, StoreError, StoreUnavailableError
from gen_orchestrator.store.line import Entry, Line


class Clerk:
    """Puts operations into a line and notes what it is told."""

    def __init__(self) -> None:
        self.line = Line()
        self.told: list[tuple[str, Any]] = []

    def put(self, name: Any, *, optional: bool = False) -> None:
        self.line.put(
            name, lambda result: self.told.append((name, result)), lambda error: self.told.append((name, error)), optional=optional
        )

    def settle(self, batch: list[Entry], results: Any) -> None:
        for call in self.line.settle(batch, results):
            call()


@pytest.fixture
def clerk() -> Clerk:
    clerk = Clerk()
    clerk.put("a")
    clerk.put("b", optional=True)
    clerk.put("c")
    return clerk


def names(entries: list[Entry]) -> list[Any]:
    return [entry.op for entry in entries]


def test_first_in_first_out_and_each_is_told_its_own_result(clerk: Clerk) -> None:
    batch = clerk.line.take(2)
    assert (names(batch), len(clerk.line)) == (["a", "b"], 1)
    clerk.settle(batch, [1, 2])
    assert clerk.told == [("a", 1), ("b", 2)]
    with pytest.raises(ValueError, match="zip"):
        clerk.settle(batch, [1])  # a store that answers for some only is a bug, and no run may wait for ever
    assert names(clerk.line.take(10)) == ["c"]
    assert len(clerk.line) == 0


def test_what_surely_was_not_written_goes_first_again_but_for_the_optional(clerk: Clerk) -> None:
    batch = clerk.line.take(2)
    error = StoreUnavailableError("no room")
    clerk.settle(batch, error)
    assert clerk.told == [("a", error), ("b", error)]
    assert [entry.left for entry in batch] == [False, True]
    assert names(clerk.line.take(10)) == ["a", "c"]


def test_what_may_have_been_written_all_stays(clerk: Clerk) -> None:
    batch = clerk.line.take(2)
    clerk.settle(batch, StoreUnavailableError("no answer", unknown=True))
    assert [entry.left for entry in batch] == [False, False]
    assert names(clerk.line.take(10)) == ["a", "b", "c"]


def test_another_error_of_the_store_is_like_no_room(clerk: Clerk) -> None:
    batch = clerk.line.take(3)
    clerk.settle(batch, StoreError("odd"))
    assert names(clerk.line.take(10)) == ["a", "c"]


def test_of_one_that_was_deposed_nothing_is_tried_again(clerk: Clerk) -> None:
    batch = clerk.line.take(2)
    clerk.settle(batch, DeposedError("another leads"))
    assert all(entry.left for entry in batch)
    assert names(clerk.line.take(10)) == ["c"]


def test_nobody_need_listen() -> None:
    line = Line()
    for optional in (False, True):
        line.put("op", None, None, optional=optional)  # type: ignore[arg-type]
    assert line.settle(line.take(2), [1, 2]) == []  # type: ignore[list-item]
    line.put("op", None, None, optional=False)  # type: ignore[arg-type]
    assert line.settle(line.take(1), StoreUnavailableError("no")) == []
    assert len(line) == 1
