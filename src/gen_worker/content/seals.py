"""Tells which finished files are intact. A seal records how a file looked when its digest was last found correct.
Blocking.

Comparing sizes alone would miss a flipped byte: written by a careless program, a neighbour, a torn write. Hashing every
file at each start would take longer than reading it: measured on two cores, BLAKE3 does 2.1 GB/s and SHA-256 0.3. A
seal costs 0.3 ms to write, 0.16 ms at a process's first look, and 0.02 ms later, of which 0.013 are the `stat` that
`has_size` also makes.

A seal holds the size, both times in ns, and the inode. Programs cannot set the change time (ctime), so a write that
restores the modification time shows as well. Our own links change the ctime, and renew the seal.

A file that does not match its seal is hashed. If it is correct it gets a new seal; otherwise it counts as absent and is
fetched again. A file without a seal, from an older version or another program, is hashed when it is first used, never
while models are merely listed. Limits of a seal: a user who may write to the store may also write seals, and bits that
change on the disk without a write are only found by `cozyctl models verify`.
"""

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from gen_worker.net.digests import digest_file
from gen_worker.shared_files import read_json, write_whole


class Look(msgspec.Struct, frozen=True):
    """How a file looks from outside. A link counts as its target."""

    size_bytes: int
    modified_ns: int
    changed_ns: int
    inode: int


class _Seal(msgspec.Struct, frozen=True):
    path: str
    look: Look


class Seals:
    """Seals in one folder, by digest and inode. Several processes may use it. Without a folder the seals last as long as this object."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._known: dict[tuple[str, int], Look] = {}

    def seal(self, path: Path, digest: str) -> None:
        """Seal a file whose digest was just found correct. When the seal cannot be written, the next process hashes the file again."""
        with contextlib.suppress(OSError, ValueError):
            look = _look(path)
            self._known[digest, look.inode] = look
            if (seal := self._path(digest, look.inode)) is not None:
                seal.parent.mkdir(parents=True, exist_ok=True)
                write_whole(seal, msgspec.json.encode(_Seal(str(path), look)))

    def is_damaged(self, path: Path, digest: str, *, unsealed: bool) -> bool:
        """Whether the content does not match its digest, as far as its seal can tell. `unsealed`: also hash a file that
        has no seal.

        A file that cannot be read counts as damaged.
        """
        try:
            look = _look(path)
            if self._known.get((digest, look.inode)) == look:
                return False
            sealed = self._read(digest, look)
            if sealed == look or (sealed is None and not unsealed):
                return False
            if digest_file(path, digest) != digest:
                return True
        except OSError:
            return True
        self.seal(path, digest)
        return False

    def has_seal(self, path: Path, digest: str) -> bool:
        """Whether this file was ever sealed, even if it has changed since."""
        try:
            return self._read(digest, _look(path)) is not None
        except OSError:
            return False

    def damaged(self, folder: Path, digests: Mapping[str, str], *, unsealed: bool) -> list[str]:
        """The damaged ones among a model's files."""
        return [name for name, digest in digests.items() if digest and self.is_damaged(folder / name, digest, unsealed=unsealed)]

    @contextlib.contextmanager
    def keeping(self, files: Mapping[Path, str]) -> Iterator[None]:
        """Wrap operations that link or unlink these files, which changes their ctime: seals that were valid before are valid after."""
        right = [(path, digest) for path, digest in files.items() if self._holds(path, digest)]
        try:
            yield
        finally:
            for path, digest in right:
                self.seal(path, digest)

    def collect(self) -> None:
        """Remove the seals of deleted files."""
        for path in self._folder.glob("*/*.json") if self._folder is not None else ():
            seal = read_json(path, _Seal)
            if seal is None or not os.path.lexists(seal.path):
                with contextlib.suppress(OSError):
                    path.unlink()

    def _holds(self, path: Path, digest: str) -> bool:
        try:
            look = _look(path)
        except OSError:
            return False
        return self._known.get((digest, look.inode)) == look or self._read(digest, look) == look

    def _read(self, digest: str, look: Look) -> Look | None:
        """The newest seal, whichever process wrote it."""
        path = self._path(digest, look.inode)
        seal = read_json(path, _Seal) if path is not None else None
        if seal is None:
            return self._known.get((digest, look.inode))
        if seal.look == look:
            self._known[digest, look.inode] = look
        return seal.look

    def _path(self, digest: str, inode: int) -> Path | None:
        name = digest.partition(":")[2]
        return self._folder / name[:2] / f"{name}-{inode}.json" if self._folder is not None else None


def _look(path: Path) -> Look:
    found = path.stat()
    return Look(found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)
