"""The division of work in a download: only unfinished files are worked on, and each piece once."""

from pathlib import Path

import pytest
from blake3 import blake3

from gen_worker.net.board import Board, Task
from gen_worker.net.checks import check_files
from gen_worker.net.fetched_file import FetchedFile
from gen_worker.net.range_client import Link
from gen_worker.net.stream_count import StreamCount
from gen_worker.net.wanted import Wanted

DATA = b"0123456789"


class Count:
    total = 0

    def add(self, size_bytes: int) -> None:
        self.total += size_bytes


@pytest.fixture
def done() -> list[str]:
    return []


@pytest.fixture
def board(tmp_path: Path, done: list[str]) -> Board:
    digest = f"blake3:{blake3(DATA).hexdigest()}"
    files = [Wanted(tmp_path / name, len(DATA), digest, lambda expired: Link("")) for name in ("a", "b")]
    return Board(files, Count(), lambda wanted: done.append(wanted.path.name))


COUNT = StreamCount(2, 2, 2)


def take(board: Board) -> Task:
    task = board.next_range(COUNT)
    assert task is not None
    return task


def bring(board: Board, task: Task) -> FetchedFile:
    """The task's bytes have come."""
    piece = memoryview(DATA)[task.at : task.end]
    task.file.part.write(task.at, piece)
    assert task.file.arrived(task.at, piece, task.epoch)
    board.leave(task.file)
    return task.file


def test_finished_files_are_handed_out_no_more(board: Board, done: list[str]) -> None:
    first = bring(board, take(board))
    checked = board.next_check()
    assert checked is first
    first.part.publish()
    first.part.close()
    board.checked(first)
    board.done(first)
    assert done == ["a"]
    second = take(board)
    assert second.file is not first
    bring(board, second)
    assert board.next_check() is second.file, "what is done is not checked again"
    second.file.part.publish()
    second.file.part.close()
    board.checked(second.file)
    board.done(second.file)
    assert board.over
    assert board.next_range(COUNT) is None
    assert board.next_check() is None
    assert board.next_flush() is None
    assert done == ["a", "b"]


def test_each_piece_is_handed_out_once(board: Board) -> None:
    tasks = [take(board), take(board)]
    assert sorted(task.file.name for task in tasks) == ["a", "b"]
    assert all((task.at, task.end) == (0, len(DATA)) for task in tasks)
    for task in tasks:
        assert not task.file.gaps
        bring(board, task)
    check_files(board)  # a check's whole work
    assert board.over
    board.close()


def test_a_file_that_comes_as_a_whole_has_one_stream(tmp_path: Path) -> None:
    """Of a server without ranges a second stream would bring the same bytes again; other files are helped with."""
    size = 64 << 20
    files = [Wanted(tmp_path / name, size, "", lambda expired: Link("")) for name in ("whole", "in ranges")]
    board = Board(files, Count(), lambda wanted: None)
    count = StreamCount(4, 4, 4)
    first, second = board.next_range(count), board.next_range(count)
    assert first is not None
    assert second is not None
    first.file.whole = True
    for _ in range(3):
        more = board.next_range(count)
        assert more is not None
        assert more.file is second.file
    board.fail(ValueError("enough"))
    board.close()


def test_a_file_that_is_checked_is_not_checked_by_another(board: Board) -> None:
    first, second = bring(board, take(board)), bring(board, take(board))
    assert [board.next_check(), board.next_check()] == [first, second]
    board.fail(ValueError("enough"))
    assert board.next_check() is None
    board.close()


def test_the_first_failure_counts_and_ends_all(board: Board) -> None:
    board.fail(ValueError("first"))
    board.fail(ValueError("second"))
    assert str(board.failure) == "first"
    assert board.next_range(COUNT) is None
