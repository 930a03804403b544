"""Checks that the open SQLite files are still the ones at their path.

A process can still write to a file that was removed or whose folder was moved: every commit succeeds, and is lost when
the process ends. So both files are checked before and after each commit (a microsecond each). While the files at the
path are other ones, the store accepts nothing more; accepted data stays in memory and in the open files. If the process
ends before the files are back, it writes the open database to its old path, or beside it if something else is there
now.
"""

import os
from pathlib import Path

import apsw

from gen_orchestrator.store.base import StoreMovedError

Place = tuple[int, int]  # device and inode


class Home:
    """The location of one database file and its write-ahead log."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._files = (path, path.with_name(f"{path.name}-wal"))
        self._places: dict[Path, Place] = {}

    def check(self) -> None:
        """Record where the files are on the first call; `StoreMovedError` when they are no longer there."""
        for path in self._files:
            place, known = _place(path), self._places.get(path)
            if known is None and place is not None:
                self._places[path] = place
            elif place != known:
                what = "was removed" if place is None else "was replaced by another file"
                raise StoreMovedError(
                    f"{path} {what} while it was in use: no more data is accepted. Put the data folder back as it was, or stop the "
                    "platform, which then writes what it has to where it was"
                )

    def rescue(self, connection: apsw.Connection) -> Path | None:
        """Before the process ends: write a database whose files are gone once more; returns where, None when they are in their place."""
        try:
            self.check()
        except StoreMovedError:
            target = self._path
            while target.exists() or target.with_name(f"{target.name}-wal").exists():
                target = target.with_name(f"{target.name}.rescued")
            target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with apsw.Connection(str(target)) as copy, copy.backup("main", connection, "main") as backup:
                backup.step()
            copy.close()
            return target
        return None


def _place(path: Path) -> Place | None:
    try:
        status = os.stat(path)  # noqa: PTH116 - twice a commit: three times as fast
    except OSError:
        return None
    return status.st_dev, status.st_ino
