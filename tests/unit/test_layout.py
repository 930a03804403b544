"""The layout of tensors in memory: aligned, whole, and cut into slices that cover them."""

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gen_worker.residency.layout import ALIGN, Image, image_of, slices_of
from gen_worker.residency.reader_count import ReaderCount
from gen_worker.sources.weight_files import TensorEntry


def entries_of(sizes: list[int]) -> list[TensorEntry]:
    found, at = [], 0
    for number, size in enumerate(sizes):
        found.append(TensorEntry(str(number), "U8", (size,), at, at + size))
        at += size
    return found


def copied(data: bytes, image: Image, piece: int, ranges: int) -> bytearray:
    """The image of a file as the reader makes it."""
    made = bytearray(image.size_bytes)
    seen: list[tuple[int, int]] = []
    for part in slices_of(image, lambda: piece, ranges):
        at = part.start
        assert part.end - part.at <= piece
        assert len(part.ranges) <= ranges
        for begin, end in part.ranges:
            made[begin:end] = data[at : at + end - begin]
            at += end - begin
            seen.append((begin, end))
    assert all(one[1] <= two[0] for one, two in itertools.pairwise(seen)), "nothing is written twice"
    return made


@given(st.lists(st.integers(0, 3000), max_size=40), st.integers(1, 5000), st.integers(1, 9), st.integers(8, 300))
def test_an_image_has_every_tensor_at_an_aligned_place(sizes: list[int], piece: int, ranges: int, start: int) -> None:
    data = random.Random(1).randbytes(start + sum(sizes))
    entries = entries_of(sizes)
    image = image_of(entries, start)
    made = copied(data, image, piece, ranges)
    assert image.size_bytes % ALIGN == 0
    assert image.size_bytes <= sum(sizes) + ALIGN * len(sizes)
    for entry, offset in zip(entries, image.offsets, strict=True):
        assert offset % ALIGN == 0
        assert made[offset : offset + entry.end - entry.start] == data[start + entry.start : start + entry.end]


def test_what_is_aligned_already_is_copied_in_one() -> None:
    assert len(image_of(entries_of([ALIGN * n for n in range(1, 100)]), 8).runs) == 1
    assert len(image_of(entries_of([512, 8, 512, 512]), 8).runs) == 2
    assert image_of([], 8) == Image((), (), 0)


def test_readers_are_added_while_they_pay() -> None:
    """A link that eight readers fill: more are tried once, and given up."""
    count = ReaderCount(16)
    for _ in range(3):
        count.begin()
        for _ in range(20):
            count.measured(min(count.count, 10) * 1e9)
        assert count.count == 10
    alone = ReaderCount(16)
    for _ in range(20):
        alone.measured(1e9)
    assert alone.count == 8


@pytest.mark.parametrize(("processors", "working", "expected"), [(2, 0, 4), (2, 1, 1), (2, 5, 1), (16, 1, 2), (16, 12, 2), (16, 15, 1)])
def test_readers_give_way_to_functions(processors: int, working: int, expected: int) -> None:
    assert ReaderCount(processors).allowed(working) == expected
