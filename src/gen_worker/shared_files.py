"""Reads, writes and removes files in folders where other users may write, without being led elsewhere.

Another user can put a symbolic link, a second name of another file (a hard link), a pipe, or a folder where we expect a
file of ours. So: open without following links, check what was opened (never the path again), and accept only a regular
file. Remove through an open handle of the folder, so that no name can lead out of it, even when folders are replaced by
links meanwhile.
"""

import os
import secrets
import stat
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

T = TypeVar("T")
MAX_READ_BYTES = 64 << 20
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # O_NONBLOCK: opening a pipe would otherwise wait for its other end
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def read_whole(path: Path, max_bytes: int = MAX_READ_BYTES) -> bytes:
    """A regular file's bytes; `OSError` for a link, a pipe, a folder, or more than `max_bytes`."""
    with os.fdopen(os.open(path, _READ), "rb") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise OSError(f"{path}: expected a regular file")
        if found.st_size > max_bytes:
            raise OSError(f"{path}: {found.st_size} bytes; at most {max_bytes} are read")
        return file.read(max_bytes)


def read_json(path: Path, kind: type[T]) -> T | None:
    """A record of ours; None when it is missing or unusable: junk, a link, or nested too deeply."""
    try:
        return msgspec.json.decode(read_whole(path), type=kind)
    except (OSError, ValueError, RecursionError):  # ValueError covers all of msgspec's errors, and bytes that are not UTF-8
        return None


def write_whole(path: Path, data: bytes) -> None:
    """Replace a file atomically. Readers see the old bytes or the new ones. A link at `path` is replaced, not followed."""
    new = path.with_name(f"{path.name}.{secrets.token_hex(4)}.new")
    try:
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644), "wb") as file:
            file.write(data)
        new.replace(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise


def open_own(path: Path, flags: int) -> int:
    """Open a file of ours for writing, and create it if it is missing. Anything else under its name loses the name: a
    link itself is removed, and its target stays. O_TRUNC empties the file after checking that it is ours.
    """
    empty = flags & os.O_TRUNC
    flags = flags & ~os.O_TRUNC | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        fd = os.open(path, flags, 0o644)
    except OSError:
        if not path.is_symlink() and not path.is_fifo():
            raise
    else:
        found = os.fstat(fd)
        if stat.S_ISREG(found.st_mode) and found.st_nlink == 1:
            if empty:
                os.ftruncate(fd, 0)
            return fd
        os.close(fd)
    path.unlink(missing_ok=True)
    return os.open(path, flags | os.O_EXCL, 0o644)


def is_plain_file(root: Path, parts: Sequence[str]) -> bool:
    """Whether `root/part/part/...` is a regular file with no other name, reached without a link below `root`."""
    try:
        here = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        for part in parts[:-1]:
            inner = os.open(part, _FOLDER, dir_fd=here)
            os.close(here)
            here = inner
        found = os.stat(parts[-1], dir_fd=here, follow_symlinks=False)
    except (OSError, ValueError):
        return False
    finally:
        os.close(here)
    return stat.S_ISREG(found.st_mode) and found.st_nlink == 1


def remove_tree(folder: Path, name: str) -> None:
    """Remove `name`, a direct entry of `folder`, with everything in it; does nothing when it does not exist.

    Links are removed, never followed. `ValueError` for a name that is not a direct entry: empty, `.`, `..`, or with a
    `/`. Works for trees of any depth: subfolders are first moved up, so that two open handles are enough.
    """
    if name in ("", ".", "..") or "/" in name or "\0" in name:
        raise ValueError(f"{name[:100]!r} is not the name of an entry of a folder")
    try:
        parent = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        _remove(parent, name)
    finally:
        os.close(parent)


def _remove(parent: int, name: str) -> None:
    try:
        top = os.open(name, _FOLDER, dir_fd=parent)
    except FileNotFoundError:
        return
    except NotADirectoryError:  # a file, or a link: Linux's answer to O_DIRECTORY with O_NOFOLLOW
        os.unlink(name, dir_fd=parent)
        return
    except OSError:
        if not stat.S_ISLNK(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
            raise
        os.unlink(name, dir_fd=parent)
        return
    try:
        while names := _names(top):
            for entry in names:
                _empty(top, entry)
    finally:
        os.close(top)
    os.rmdir(name, dir_fd=parent)


def _empty(top: int, name: str) -> None:
    """Remove an entry of `top`; folders in it are moved up into `top`, where the next round finds them."""
    try:
        os.unlink(name, dir_fd=top)
        return
    except FileNotFoundError:
        return
    except (IsADirectoryError, PermissionError):  # macOS reports EPERM for a folder
        pass
    inner = os.open(name, _FOLDER, dir_fd=top)
    try:
        for entry in _names(inner):
            try:
                os.unlink(entry, dir_fd=inner)
            except (IsADirectoryError, PermissionError):
                os.rename(entry, secrets.token_hex(16), src_dir_fd=inner, dst_dir_fd=top)
    finally:
        os.close(inner)
    os.rmdir(name, dir_fd=top)


def _names(folder: int) -> list[str]:
    with os.scandir(folder) as entries:
        return [entry.name for entry in entries]


def make_writable(folder: Path) -> None:
    """Create the folder if needed, and test it with a small file; `OSError` says why it is not writable."""
    folder.mkdir(parents=True, exist_ok=True)
    _try_writing(folder)


def check_writable(folder: Path) -> None:
    """Like `make_writable`, but creates nothing: if the folder does not exist, the nearest existing parent is tested."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    _try_writing(folder)


def _try_writing(folder: Path) -> None:
    with tempfile.TemporaryFile(dir=folder, prefix=".probe-") as file:  # on Linux without a name, so that nothing is left if we are killed
        file.write(b"probe")
        file.flush()
        os.fsync(file.fileno())
