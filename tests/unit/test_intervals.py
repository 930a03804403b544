"""Ranges of a file that are present, compared with a plain set of bytes."""

from itertools import pairwise

import hypothesis.strategies as st
from hypothesis import example, given

from gen_worker.net.intervals import Intervals

RANGES = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=8)


@given(RANGES, st.integers(0, 35))
@example([(0, 2), (2, 4)], 4)
@example([(4, 6), (0, 2), (1, 9)], 10)
@example([(5, 3)], 3)
def test_they_are_a_set_of_bytes(ranges: list[tuple[int, int]], size: int) -> None:
    there = Intervals(ranges)
    wanted = {byte for start, end in ranges for byte in range(start, end)}
    found = list(there)
    assert {byte for start, end in found for byte in range(start, end)} == wanted
    assert all(start < end for start, end in found)
    assert all(one[1] < other[0] for one, other in pairwise(found)), "sorted, and neighbours are one"
    assert there.total() == len(wanted)
    gaps = there.missing(size)
    assert {byte for start, end in gaps for byte in range(start, end)} == set(range(size)) - wanted
    assert all(start < end for start, end in gaps)
    assert there.front() == next(byte for byte in range(40) if byte not in wanted)
    assert there.within(size) == (wanted <= set(range(size)))
    assert not Intervals([(-1, 2)]).within(size)
