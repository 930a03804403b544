"""What is written for logs never waits for who reads."""

import os
import pty
import select
import socket
import tempfile
import time
from collections.abc import Iterator
from typing import TextIO

import pytest

from gen_worker.log_pipe import LogPipe, LogText, guarded

LINES = 5000
WAITING_BYTES = 64 << 10


def lost_line(lines: int) -> str:
    return f"{lines} lost"


class Ends:
    """Two ends of something whose reader may not read."""

    def __init__(self, kind: str) -> None:
        if kind == "pipe":
            self.reads, self.writes = os.pipe()
        elif kind == "terminal":
            self.reads, self.writes = pty.openpty()
        else:
            one, other = socket.socketpair()
            self.reads, self.writes = one.detach(), other.detach()

    def text(self, until_text: str, timeout_s: float = 60) -> str:
        """What is read until this text has come."""
        found, began_s = b"", time.monotonic()
        while until_text.encode() not in found:
            assert time.monotonic() - began_s < timeout_s, found[-500:]
            if select.select([self.reads], [], [], 1)[0]:
                found += os.read(self.reads, 1 << 16)
        return found.decode().replace("\r\n", "\n")

    def close(self) -> None:
        for number in (self.reads, self.writes):
            os.close(number)


@pytest.fixture(params=["pipe", "terminal", "socket"])
def ends(request: pytest.FixtureRequest) -> Iterator[Ends]:
    found = Ends(request.param)
    yield found
    found.close()


def text_of(number: int, waiting_bytes: int = WAITING_BYTES) -> LogText:
    return LogText(LogPipe(number, lost_line, waiting_bytes))


def test_lines_that_nobody_reads_are_counted_where_they_are_missing(ends: Ends) -> None:
    stream = text_of(ends.writes)
    for number in range(LINES):
        print(f"{number:04} {'x' * 95}", file=stream)  # nobody reads: as many as fit are kept, and this does not wait
    before = ends.text("lost").splitlines()
    *kept, lost = [line for line in before if line]
    assert [int(line[:4]) for line in kept] == list(range(len(kept)))  # whole, and in order
    assert lost == f"{LINES - len(kept)} lost"
    print("the reader is back", file=stream)
    assert ends.text("back").splitlines()[-1] == "the reader is back"


def test_what_comes_after_a_gap_stands_after_its_line(ends: Ends) -> None:
    stream = text_of(ends.writes)
    for _ in range(LINES):
        print("x" * 99, file=stream)
    assert not stream.drain(0.01)
    while stream._pipe._waiting_bytes > WAITING_BYTES - 200:  # until there is room for some, while others wait
        ends.text("x")
    print("after the gap", file=stream)
    lines = ends.text("after the gap").splitlines()
    assert [line.partition(" ")[2] for line in lines[-2:]] == ["lost", "the gap"]


def test_a_forked_child_writes_too(ends: Ends) -> None:
    stream = text_of(ends.writes)
    print("of the parent", file=stream)
    stream._pipe._changed.acquire()  # as another thread may, in the moment in which one forks
    if (child := os.fork()) == 0:
        print("of the child", file=stream)
        os._exit(0 if stream.drain(60) else 1)
    stream._pipe._changed.release()
    assert ends.text("child").splitlines() == ["of the parent", "of the child"]
    assert os.waitpid(child, 0)[1] == 0


def test_a_child_does_not_say_again_what_waits_in_its_parent() -> None:
    ends = Ends("pipe")
    stream = text_of(ends.writes)
    for number in range(1000):
        print(f"{number:04} {'x' * 95}", file=stream)
    if os.fork() == 0:
        os._exit(0 if stream.drain(0) else 1)
    assert os.wait()[1] == 0
    print("last", file=stream)
    lines = ends.text("last").splitlines()
    assert len(lines) == 1001
    ends.close()


def test_a_reader_that_is_gone_is_nobodys_error() -> None:
    reads, writes = os.pipe()
    stream = text_of(writes)
    for _ in range(LINES):
        print("x" * 99, file=stream)
    os.close(reads)
    assert stream.drain(60)
    print("nobody hears this", file=stream)
    stream.close()
    os.close(writes)


def test_a_line_larger_than_all_that_may_wait_is_whole_once_it_has_begun() -> None:
    ends = Ends("pipe")
    stream = text_of(ends.writes)
    stream.write("y" * 500_000 + "\n")
    print("next", file=stream)
    lines = ends.text("lost").splitlines()
    assert [len(lines[0]), lines[1:]] == [500_000, ["1 lost"]]
    ends.close()


def test_an_author_who_closes_the_stream_does_not_close_the_log() -> None:
    ends = Ends("pipe")
    stream = text_of(ends.writes)
    stream.close()
    print("still here", file=stream)
    assert ends.text("here") == "still here\n"
    ends.close()


def test_a_file_is_left_as_it_is() -> None:
    with tempfile.TemporaryFile("w") as file:
        assert guarded(file, lost_line) is file
    closed: TextIO = file
    assert guarded(closed, lost_line) is closed
