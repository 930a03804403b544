"""A cache of input files, by owner and verified content hash."""

import hashlib
import os
import shutil
import threading
from pathlib import Path

DEFAULT_MAX_BYTES = 4 << 30


class InputCache:
    """Files under `<root>/<owner digest>/<sha256>`. An owner never gets another's files, nor a file whose content was
    not verified.

    The least recently used files are removed when `max_bytes` are exceeded. Safe from any thread, and for processes
    that share the folder.
    """

    def __init__(self, root: Path, max_bytes: int = DEFAULT_MAX_BYTES) -> None:
        self._root = root
        self._max_bytes = max_bytes
        self._lock = threading.Lock()

    def copy_to(self, path: Path, owner: str, sha256: str) -> bool:
        """Put the cached file at `path`, as a hard link if possible; False when it is not cached."""
        cached = self._path(owner, sha256)
        try:
            _link_or_copy(cached, path)
            os.utime(cached)
        except FileNotFoundError:
            return False
        return True

    def keep(self, path: Path, owner: str, sha256: str) -> None:
        """Keep the file at `path`, whose content was verified to have this digest."""
        cached = self._path(owner, sha256)
        if cached.exists():
            return
        cached.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        temporary = cached.with_name(f".{cached.name}.{os.getpid()}.{threading.get_ident()}")
        _link_or_copy(path, temporary)
        temporary.replace(cached)
        self._evict()

    def discard(self, owner: str, sha256: str) -> None:
        """Forget a file whose content has changed: a run may have written to its input, which is the same file on disk."""
        self._path(owner, sha256).unlink(missing_ok=True)

    def _path(self, owner: str, sha256: str) -> Path:
        return self._root / hashlib.sha256(owner.encode()).hexdigest()[:32] / sha256

    def _evict(self) -> None:
        with self._lock:
            found = []
            for path in self._root.glob("*/*"):
                try:
                    stat = path.stat()
                except FileNotFoundError:
                    continue
                found.append((stat.st_mtime, stat.st_size, path))
            total_bytes = sum(size for _, size, _ in found)
            for _, size_bytes, path in sorted(found):
                if total_bytes <= self._max_bytes:
                    return
                path.unlink(missing_ok=True)
                total_bytes -= size_bytes


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:  # another file system, or one without hard links
        shutil.copyfile(source, target)


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
