"""A folder in which a client on this machine lays files of a push, instead of sending their bytes.

    <folder>/nonce     what the platform tells a client; one that finds it there shares this disk, and this user, with the platform
    <folder>/<name>    a file that a client made, by a name of its own choice

The folder is open to the platform's user alone: nobody else can lay a file in it, or read the nonce. The platform opens nothing else by a
name that a client says, so that nobody has it read a file that he may not read himself. What lies here is a file of its own, a reflink or
a copy, and its digest is computed after it was taken out: what the author writes later changes nothing. Another name of the author's file
(a hard link) is taken where the client says that it is one. Blocking, any thread.
"""

import contextlib
import os
import re
import secrets
import stat
import time
from pathlib import Path

import msgspec

from gen_worker.shared_files import write_whole

NONCE = "nonce"
_NAME = re.compile(r"[0-9a-f]{32}")


class InboxOffer(msgspec.Struct, frozen=True):
    """Where files may be laid, and the content of `nonce` there."""

    folder: str
    nonce: str


class NotLaidError(ValueError):
    """There is no such file in the inbox, or none that is taken."""


class Inbox:
    """In one folder, made on first use."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def offer(self) -> InboxOffer:
        """What a client is told. Nodes of one data folder tell the same."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._folder.chmod(0o700)
        path = self._folder / NONCE
        with contextlib.suppress(FileNotFoundError):
            if found := path.read_text():
                return InboxOffer(str(self._folder.absolute()), found)
        write_whole(path, secrets.token_hex(32).encode())
        return InboxOffer(str(self._folder.absolute()), path.read_text())

    def take(self, name: str, target: Path, *, linked: bool) -> None:
        """Move a file out of the inbox; `NotLaidError` where it is no file of its own. `linked`: it may have other names."""
        if not _NAME.fullmatch(name):
            raise NotLaidError(f"inbox={name[:100]!r}: expected 32 hexadecimal digits")
        path = self._folder / name
        try:
            status = os.lstat(path)
            is_own = stat.S_ISREG(status.st_mode) and (linked or status.st_nlink == 1) and status.st_uid == os.geteuid()
            if not is_own:
                raise NotLaidError(f"{name} in the inbox is no file of its own; expected a copy, no link")
            path.rename(target)
        except FileNotFoundError:
            raise NotLaidError(f"there is no {name} in the inbox") from None

    def sweep(self, young_s: float) -> None:
        """Remove what clients left that were cut off."""
        with contextlib.suppress(FileNotFoundError):
            for path in self._folder.iterdir():
                with contextlib.suppress(OSError):
                    if path.name != NONCE and time.time() - os.lstat(path).st_ctime > young_s:
                        path.unlink()
