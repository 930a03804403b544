"""Writing to a log never waits for its reader."""

import os
import pty
import select
import socket
import tempfile
import time
import tty
from collections.abc import Callable, Iterator
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
            tty.setraw(self.writes)  # a line ends as it is written
        else:
            one, other = socket.socketpair()
            self.reads, self.writes = one.detach(), other.detach()

    def text(self, is_all: Callable[[str], bool]) -> str:
        """What is read until it is all that is waited for."""
        found, began_s = b"", time.monotonic()
        poll = select.poll()  # `select` takes no descriptor above 1023, and many tests run in this process
        poll.register(self.reads, select.POLLIN)
        while not is_all(found.decode()):
            assert time.monotonic() - began_s < 60, found[-500:]
            if poll.poll(1000):
                found += os.read(self.reads, 1 << 16)
        return found.decode()

    def until(self, text: str) -> str:
        return self.text(lambda found: text in found)

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


def checked(text: str) -> tuple[int, int]:
    """How many numbered lines were kept and lost: those that were kept are whole and in order, and a gap is told where it is."""
    kept = lost = 0
    for line in text.splitlines():
        if line.endswith(" lost"):
            lost += int(line.split()[0])
        else:
            assert line == f"{kept + lost:04} {'x' * 95}"
            kept += 1
    return kept, lost


def test_lines_that_nobody_reads_are_counted_where_they_are_missing(ends: Ends) -> None:
    stream = text_of(ends.writes)
    for number in range(LINES):
        print(f"{number:04} {'x' * 95}", file=stream)  # nobody reads: as many as fit are kept, and this does not wait
    assert not stream.drain(0.01)
    kept, lost = checked(ends.text(lambda said: said.endswith("\n") and sum(checked(said)) == LINES))
    assert kept >= WAITING_BYTES // 101
    assert lost
    print("the reader is back", file=stream)
    assert ends.until("back\n") == "the reader is back\n"


def test_what_comes_after_a_gap_stands_after_its_line(ends: Ends) -> None:
    stream = text_of(ends.writes)
    for number in range(LINES):
        print(f"{number:04} {'x' * 95}", file=stream)
    said = ""
    while stream._pipe._waiting_bytes > WAITING_BYTES - 200:  # until there is room for some, while others wait
        said += ends.until("x")
    print("after the gap", file=stream)
    said += ends.until("after the gap\n")
    assert sum(checked(said.removesuffix("after the gap\n"))) == LINES


def test_a_forked_child_writes_too(ends: Ends) -> None:
    stream = text_of(ends.writes)
    print("of the parent", file=stream)
    stream._pipe._changed.acquire()  # as another thread may, in the moment in which one forks
    if (child := os.fork()) == 0:
        print("of the child", file=stream)
        os._exit(0 if stream.drain(60) else 1)
    stream._pipe._changed.release()
    assert ends.until("child").splitlines() == ["of the parent", "of the child"]
    assert os.waitpid(child, 0)[1] == 0


def test_a_child_does_not_say_again_what_waits_in_its_parent() -> None:
    ends = Ends("pipe")
    stream = text_of(ends.writes)
    for number in range(1000):
        print(f"{number:04} {'x' * 95}", file=stream)
    if (child := os.fork()) == 0:
        os._exit(0 if stream.drain(0) else 1)
    assert os.waitpid(child, 0)[1] == 0
    print("last", file=stream)
    lines = ends.until("last").splitlines()
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
    lines = ends.until("lost").splitlines()
    assert [len(lines[0]), lines[1:]] == [500_000, ["1 lost"]]
    ends.close()


def test_an_author_who_closes_the_stream_does_not_close_the_log() -> None:
    ends = Ends("pipe")
    stream = text_of(ends.writes)
    stream.close()
    print("still here", file=stream)
    assert ends.until("here") == "still here\n"
    ends.close()


def test_a_file_is_left_as_it_is() -> None:
    with tempfile.TemporaryFile("w") as file:
        assert guarded(file, lost_line) is file
    closed: TextIO = file
    assert guarded(closed, lost_line) is closed
