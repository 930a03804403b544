"""Range headers, by their grammar."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gen_worker.http.ranges import MAX_RANGES, requested_spans


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ("bytes=2-3", ((2, 4),)),
        ("Bytes=2-3", ((2, 4),)),
        ("bytes=2-", ((2, 10),)),
        ("bytes=-2", ((8, 10),)),
        ("bytes=-99", ((0, 10),)),
        ("bytes=0-99", ((0, 10),)),
        ("bytes=00-01", ((0, 2),)),
        ("bytes=0-" + "9" * 30, ((0, 10),)),
        ("bytes=0-0,99-", ((0, 1),)),
        ("bytes=99-,-0,0-0", ((0, 1),)),
        ("bytes= ,, 0-0 ,\t,9-9 ,", ((0, 1), (9, 10))),
        ("bytes=5-6,0-1,1-5", ((0, 7),)),
        ("bytes=0-1,2-3", ((0, 4),)),
        ("bytes=0-0" + ",9-9" * (MAX_RANGES - 1), ((0, 1), (9, 10))),
        ("bytes=10-", ()),
        ("bytes=99-100,-0", ()),
        ("bytes=" + "9" * 30 + "-", ()),
        ("bytes=-0", ()),
        *[
            (header, None)
            for header in (
                *("bytes=--1", "bytes=0-0,--1", "bytes=-", "bytes=", "bytes=,", "bytes", "", "=0-1", "bytes=9-1", "bytes=99-98"),
                *("bytes=0-1-2", "bytes=0- 1", "bytes=0 -1", "bytes=+0-1", "bytes=0x0-1", "bytes=²-", "bytes=0-1;2-3", "bytes=0-1,a"),
                *(
                    "items=0-1",
                    "bytes =0-1",
                    " bytes=0-1",
                    "bytes=0-0, bytes=2-3",
                    "bytes=0-" + "9" * 5000,
                    "bytes=0-0" + ",9-9" * MAX_RANGES,
                ),
            )
        ],
    ],
)
def test_spans(header: str, found: tuple[tuple[int, int], ...] | None) -> None:
    assert requested_spans(header, 10) == found


@pytest.mark.parametrize(("header", "found"), [("bytes=-5", None), ("bytes=-0", ()), ("bytes=0-", ()), ("bytes=0-0", ())])
def test_of_an_empty_file_only_its_last_bytes_can_be_sent(header: str, found: tuple[tuple[int, int], ...] | None) -> None:
    assert requested_spans(header, 0) == found


@given(st.text("bytes=0123456789-, ", max_size=30).map("bytes={}".format) | st.text(max_size=30), st.integers(0, 20))
def test_spans_are_inside_sorted_and_apart(header: str, size_bytes: int) -> None:
    found = requested_spans(header, size_bytes) or ()
    edges = [edge for span in found for edge in span]
    assert edges == sorted(set(edges))
    assert all(0 <= start < end <= size_bytes for start, end in found)
