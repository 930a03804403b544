"""A folder into which a client on this machine puts files of a push, instead of sending their bytes.

    <folder>/nonce     a value that the platform also sends to the client. A client that finds it there has the same disk and user.
    <folder>/<name>    a file that a client made, with a name of its own choice

Only the platform's user can open the folder: nobody else can put a file into it, or read the nonce. The platform opens
no other file by a name from a client, so that no client can make it read a file that the client itself may not read. A
file here is a separate file, a reflink or a copy, and its digest is computed after it was taken out of the folder:
later changes by the author have no effect. A hard link to the author's file is accepted if the client says that it is
one. Blocking, any thread.
"""

import contextlib
import os
import re
import secrets
import stat
import time
from pathlib import Path

import msgspec

from gen_orchestrator.hub.half_files import forget
from gen_worker.shared_files import write_whole

NONCE = "nonce"
_NAME = re.compile(r"[0-9a-f]{32}")


class InboxOffer(msgspec.Struct, frozen=True):
    """The folder for files, and the content of `nonce` there."""

    folder: str
    nonce: str


class NotLaidError(ValueError):
    """There is no such file in the inbox, or it is not acceptable."""


class Inbox:
    """The inbox in one folder, which is made on first use."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def offer(self) -> InboxOffer:
        """The offer for a client. All nodes of one data folder make the same offer."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._folder.chmod(0o700)
        self.forget_dead()
        path = self._folder / NONCE
        with contextlib.suppress(FileNotFoundError):
            if found := path.read_text():
                return InboxOffer(str(self._folder.absolute()), found)
        write_whole(path, secrets.token_hex(32).encode())
        return InboxOffer(str(self._folder.absolute()), path.read_text())

    def take(self, name: str, target: Path, *, linked: bool) -> None:
        """Move a file out of the inbox; `NotLaidError` if it is not a separate file. `linked`: it may have other names (hard links)."""
        if not _NAME.fullmatch(name):
            raise NotLaidError(f"inbox={name[:100]!r}: expected 32 hexadecimal digits")
        path = self._folder / name
        try:
            status = os.lstat(path)
            is_own = stat.S_ISREG(status.st_mode) and (linked or status.st_nlink == 1) and status.st_uid == os.geteuid()
            if not is_own:
                raise NotLaidError(f"{name} in the inbox is not a separate file; expected a copy, not a link")
            path.rename(target)
        except FileNotFoundError:
            raise NotLaidError(f"there is no {name} in the inbox") from None

    def forget_dead(self) -> int:
        """Remove the files of clients that are dead; returns their number. Links to authors' files need no room: they stay
        until `sweep`.
        """
        with contextlib.suppress(FileNotFoundError):
            return forget(path for path in list(self._folder.iterdir()) if path.name != NONCE and _is_separate(path))
        return 0

    def sweep(self, young_s: float) -> None:
        """Remove old files that interrupted clients have left."""
        with contextlib.suppress(FileNotFoundError):
            for path in self._folder.iterdir():
                with contextlib.suppress(OSError):
                    if path.name != NONCE and time.time() - os.lstat(path).st_ctime > young_s:
                        path.unlink()


def _is_separate(path: Path) -> bool:
    with contextlib.suppress(OSError):
        return os.lstat(path).st_nlink == 1
    return False
