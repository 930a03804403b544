"""Work beside the streams of a download: catches up lagging hashes, writes bytes to the disk, publishes complete files."""

from gen_worker.net.board import Board
from gen_worker.net.fetched_file import FetchedFile
from gen_worker.net.wanted import DownloadFailedError


def check_files(board: Board) -> None:
    """The main loop of one thread."""
    while (file := board.next_check()) is not None:
        try:
            while not board.over and file.hash_on():
                pass
            if not board.over and _is_settled(file):
                _finish(board, file)
        except Exception as exc:  # noqa: BLE001 - a disk that cannot be read ends the download
            board.fail(exc)
        finally:
            board.checked(file)


def flush_files(board: Board) -> None:
    """The main loop of one thread: writes bytes to the disk as they arrive, so that little is left for the end."""
    while (file := board.next_flush()) is not None:
        try:
            written = file.part.done.total()
            file.part.flush()
            file.flushed = written
        except Exception as exc:  # noqa: BLE001 - as above
            board.fail(exc)
        finally:
            board.flushed(file)


def _is_settled(file: FetchedFile) -> bool:
    with file.lock:
        return file.is_complete and not file.flushing


def _finish(board: Board, file: FetchedFile) -> None:
    """Publish a complete file if its digest is correct; otherwise fetch it once more."""
    if file.hash is not None and file.hash.hexdigest() != file.wanted.digest.partition(":")[2]:
        if file.restarts:
            file.opened = False
            file.part.discard()
            raise DownloadFailedError(
                f"{file.name} arrived twice with content that does not match its digest; the source is wrong", passing=False
            )
        with file.lock:
            file.restarts += 1
            board.restart(file)
        return
    file.part.publish()
    file.part.close()
    board.done(file)
