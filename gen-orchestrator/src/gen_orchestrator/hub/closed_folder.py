"""Closes the data folder to other users, except for the path to one of its folders.

Published code is imported as a separate user, which must reach its environment below the data folder. So that folder can be traversed
(0711), and everything else in it is closed to others (no permission bits).
"""

import contextlib
import os
import stat
from pathlib import Path

# These may appear beside the environments later. They are created beforehand with closed permissions.
FOLDERS = ("archives", "blobs", "builds", "container-logs", "files", "image-caches", "logs", "models", "releases", "trash", "uploads")
_OTHERS = 0o077


def let_others_through(data: Path, to: str) -> None:
    """Let other users traverse `data` to its folder `to`, and access nothing else. Only root does that, and needs it."""
    if os.geteuid() != 0:
        return
    for name in FOLDERS:
        with contextlib.suppress(FileExistsError):
            (data / name).mkdir(mode=0o700)
    for path in data.iterdir():
        with contextlib.suppress(FileNotFoundError):  # a file that was replaced
            mode = stat.S_IMODE(path.lstat().st_mode)
            if path.name == to:
                # traversable but not listable, because an environment may contain its owner's private files
                path.chmod(mode & ~_OTHERS | 0o011)
            elif mode & _OTHERS and not path.is_symlink():
                path.chmod(mode & ~_OTHERS)
    data.chmod(stat.S_IMODE(data.stat().st_mode) & ~_OTHERS | 0o011)
