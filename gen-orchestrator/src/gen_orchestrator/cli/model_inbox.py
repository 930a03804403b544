"""Hands files to a platform on this machine without sending their bytes: puts them into its inbox, as reflinks, links or copies."""

import contextlib
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from gen_orchestrator.hub.half_files import begin
from gen_orchestrator.hub.inbox import NONCE
from gen_worker.net.disk_calls import copy_bytes, share_bytes
from gen_worker.texts import counted

MAX_NONCE_BYTES = 200


def inbox_of(offer: Any) -> Path | None:
    """The inbox that a platform offers; None if the platform is on another machine, or belongs to another user.

    A server cannot fake an inbox: the folder must belong to us alone, and its nonce must have the value that the server
    sent.
    """
    try:
        folder, nonce = Path(offer["folder"]), str(offer["nonce"])
        status = os.lstat(folder)
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
            return None
        descriptor = os.open(folder / NONCE, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            return folder if nonce and os.read(descriptor, MAX_NONCE_BYTES) == nonce.encode() else None
        finally:
            os.close(descriptor)
    except (OSError, KeyError, TypeError, ValueError):
        return None


class Laid(msgspec.Struct, frozen=True):
    """A file in the inbox. `linked`: it is a hard link to the author's own file; `shares`: a copy that shares its bytes with it."""

    name: str
    linked: bool = False
    shares: bool = False


class Handed(msgspec.Struct):
    """How the files of a push came to the platform, in files."""

    linked: int = 0
    shared: int = 0
    copied: int = 0
    sent: int = 0

    def note(self, laid: Laid | None) -> None:
        """Count one file; None: its bytes were sent."""
        name = "sent" if laid is None else "linked" if laid.linked else "shared" if laid.shares else "copied"
        setattr(self, name, getattr(self, name) + 1)

    def told(self) -> list[str]:
        """What became of `--link`, in words."""
        lines = []
        if self.linked:
            lines.append(
                f"{counted(self.linked, 'file')} linked, without a copy: the platform serves the very files of this folder. "
                "They are read-only now. If you change one, the model is refused until you push it again; deleting them here does no harm"
            )
        if self.shared:
            lines.append(f"{counted(self.shared, 'file')} copied at no cost, since this disk shares bytes: you may change yours")
        if self.copied:
            why = "the platform's data folder is on another disk, or they belong to another user"
            lines.append(f"{counted(self.copied, 'file')} copied, not linked: {why}")
        if not lines and not self.sent:
            lines.append("nothing to link: the platform has all files already")
        return lines


@contextlib.contextmanager
def laid(source: Path, inbox: Path, *, link: bool) -> Iterator[Laid]:
    """A file in the inbox with the bytes of `source`, until the block ends: by then the platform has taken it, or it is
    removed. `link`: by a hard link, if the disk cannot share bytes between two files. `OSError` names the file.
    """
    name = secrets.token_hex(16)
    path = inbox / name
    with contextlib.ExitStack() as until_taken:
        until_taken.callback(path.unlink, missing_ok=True)
        try:
            shares, linked = False, link and _linked(source, path)
            if not linked:
                to_file = until_taken.enter_context(begin(path))
                with source.open("rb") as from_file:
                    shares = copy_bytes(from_file.fileno(), to_file.fileno())
        except OSError as exc:
            if exc.filename is None:
                raise OSError(exc.errno, exc.strerror, str(path)) from None
            raise
        yield Laid(name, linked=linked, shares=shares)


def _linked(source: Path, path: Path) -> bool:
    with source.open("rb") as from_file, path.open("xb") as to_file:
        shares = share_bytes(from_file.fileno(), to_file.fileno())
    path.unlink()
    if shares:
        return False  # better than a link, and as cheap
    try:
        os.link(source.resolve(strict=True), path)
    except OSError:  # the inbox is on another file system, or the file belongs to another user
        return False
    return True
