"""Which finished files are known to be right: a seal remembers how a file looked when its digest was found right. Blocking.

Sizes alone would let a flipped byte through: a careless program's, a neighbour's, a torn write's. Hashing every file at each start would
cost longer than reading it: measured on two cores, BLAKE3 takes 2.1 GB/s and SHA-256 0.3. A seal costs 0.3 ms to write, 0.16 ms at the
first look of a process, and 0.02 ms later, of which 0.013 are the `stat` that `has_size` makes as well.

A seal holds size, both times in ns, and inode. The change time (ctime) cannot be set by programs, so that a write with the modification
time put back shows as well; our own links change it, and renew the seal.

A file that does not match its seal is hashed: right, it gets a new seal; wrong, it counts as absent and comes again. A file without a
seal, of an older program or another one, is hashed when it is first used, never while models are merely listed. What a seal does not
stop: who may write the store as this user may write seals, too; and bits that change on the disk without any write show only in
`cozyctl models verify`.
"""

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from gen_worker.net.digests import digest_file
from gen_worker.shared_files import read_json, write_whole


class Look(msgspec.Struct, frozen=True):
    """How a file looks from outside. A link counts as what it leads to."""

    size_bytes: int
    modified_ns: int
    changed_ns: int
    inode: int


class _Seal(msgspec.Struct, frozen=True):
    path: str
    look: Look


class Seals:
    """Seals in one folder, by digest and inode; several processes may use it. Without a folder they last as long as this object."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._known: dict[tuple[str, int], Look] = {}

    def seal(self, path: Path, digest: str) -> None:
        """This file has been found right just now. A seal that cannot be written costs a hash in the next process."""
        with contextlib.suppress(OSError, ValueError):
            look = _look(path)
            self._known[digest, look.inode] = look
            if (seal := self._path(digest, look.inode)) is not None:
                seal.parent.mkdir(parents=True, exist_ok=True)
                write_whole(seal, msgspec.json.encode(_Seal(str(path), look)))

    def is_damaged(self, path: Path, digest: str, *, unsealed: bool) -> bool:
        """Whether the content is not what its digest says, as far as its seal tells; `unsealed`: also look at a file that has none.

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

    def damaged(self, folder: Path, digests: Mapping[str, str], *, unsealed: bool) -> list[str]:
        """Those of a model's files that are damaged."""
        return [name for name, digest in digests.items() if digest and self.is_damaged(folder / name, digest, unsealed=unsealed)]

    @contextlib.contextmanager
    def keeping(self, files: Mapping[Path, str]) -> Iterator[None]:
        """Around what gives these files another name or takes one away, which changes how they look: seals that hold before hold after."""
        right = [(path, digest) for path, digest in files.items() if self._holds(path, digest)]
        try:
            yield
        finally:
            for path, digest in right:
                self.seal(path, digest)

    def collect(self) -> None:
        """Forget the seals of files that are gone."""
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
        """The seal as it was written last, by whichever process."""
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
