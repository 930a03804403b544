"""Threads of a serving process take short turns, except while a model loads."""

import sys
from collections.abc import Iterator

import pytest

from gen_worker.interpreter import SWITCH_S, _Turns


@pytest.fixture
def turns() -> Iterator[_Turns]:
    before_s = sys.getswitchinterval()
    yield _Turns()
    sys.setswitchinterval(before_s)


def test_turns_are_long_while_anything_loads(turns: _Turns) -> None:
    before_s = sys.getswitchinterval()
    turns.shorten()
    assert sys.getswitchinterval() == pytest.approx(SWITCH_S)
    with turns.long():
        with turns.long():
            assert sys.getswitchinterval() == before_s
        assert sys.getswitchinterval() == before_s
    assert sys.getswitchinterval() == pytest.approx(SWITCH_S)


def test_they_are_short_again_after_an_error(turns: _Turns) -> None:
    turns.shorten()
    with pytest.raises(MemoryError), turns.long():
        raise MemoryError
    assert sys.getswitchinterval() == pytest.approx(SWITCH_S)


def test_a_load_before_the_program_serves_leaves_them_as_they_are(turns: _Turns) -> None:
    before_s = sys.getswitchinterval()
    with turns.long():
        turns.shorten()
        assert sys.getswitchinterval() == before_s
    assert sys.getswitchinterval() == pytest.approx(SWITCH_S)
