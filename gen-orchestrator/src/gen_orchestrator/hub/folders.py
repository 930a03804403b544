"""Project folders as releases: copies of the source, so a release does not change while the author edits."""

import hashlib
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from gen_worker.project.source_tree import SourceTree, Stamp, identity_of, stamp_of

MAX_FILES = 20_000
MAX_BYTES = 512 << 20
SKIPPED = frozenset({".git", ".venv", "__pycache__", "node_modules", "outputs", ".mypy_cache", ".ruff_cache", ".pytest_cache", "dist"})


class FolderError(Exception):
    """A folder that cannot be served; the message says why and what helps."""


def files_of(folder: Path) -> list[Path]:
    """The files of a release made from this folder, sorted. `FolderError` when there are too many for a project."""
    found: list[Path] = []
    size_bytes = 0
    for parent, files in _walk(folder):
        for name in files:
            path = Path(parent) / name
            if not path.is_file():
                continue
            found.append(path)
            size_bytes += path.stat().st_size
            if len(found) > MAX_FILES or size_bytes > MAX_BYTES:
                raise FolderError(
                    f"{folder} holds more than {MAX_FILES} files or {MAX_BYTES >> 20} MiB; serve the project's own folder, "
                    "and keep models and data outside of it"
                )
    return sorted(found)


class ReleaseFiles:
    """The same files, for watching."""

    def __init__(self, folder: Path) -> None:
        self._folder = str(folder)

    def takes(self, path: str) -> bool:
        """Whether a file with this path would be part of a release."""
        below = path.removeprefix(f"{self._folder}/")
        return below != path and not path.endswith(".pyc") and not any(_is_skipped(part) for part in below.split("/"))

    def read(self) -> SourceTree:
        """Their current state. Blocking."""
        files: dict[str, Stamp] = {}
        folders, targets = set(), set()
        loose = {self._folder: identity_of(self._folder)}
        for parent, names in _walk(self._folder):
            folders.add(parent)
            for path in (f"{parent}/{name}" for name in names):
                stamp = stamp_of(path)
                if stamp is not None:
                    files[path] = stamp
                if os.path.islink(path):  # noqa: PTH114 - of each file
                    loose[path] = identity_of(path)
                    targets.add(os.path.realpath(path))
        return SourceTree(files, frozenset(folders), frozenset(targets), loose)


def digest_of(folder: Path) -> str:
    """A digest of names and contents, in hex: equal as long as nothing changes."""
    digest = hashlib.blake2b(digest_size=16)
    for path in files_of(folder):
        digest.update(os.fsencode(path.relative_to(folder)) + b"\0")
        digest.update(hashlib.blake2b(path.read_bytes()).digest())
    return digest.hexdigest()


def prune(folder: Path) -> None:
    """Delete everything that is not part of a release: it is not in the digest, so it must not be there."""
    for parent, names, files in os.walk(folder):
        for name in [name for name in names if _is_skipped(name)]:
            shutil.rmtree(Path(parent) / name)
            names.remove(name)
        for name in files:
            if name.endswith(".pyc"):
                (Path(parent) / name).unlink()


def interpreter_of(folder: Path) -> str:
    """The project's own interpreter if it has an environment, else the one that runs this program."""
    own = folder / ".venv" / "bin" / "python"
    return str(own) if own.exists() else sys.executable


def copy_files(folder: Path, target: Path) -> None:
    """Copy the files of a release. Blocking."""
    if target.exists():
        shutil.rmtree(target)  # left by an interrupted try
    for path in files_of(folder):
        copy = target / path.relative_to(folder)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, copy)


def _walk(folder: Path | str) -> Iterator[tuple[str, list[str]]]:
    """Each folder of a release, with the names of its files."""
    for parent, names, files in os.walk(folder):
        names[:] = [name for name in names if not _is_skipped(name)]
        yield parent, [name for name in files if not name.endswith(".pyc")]


def _is_skipped(name: str) -> bool:
    return name in SKIPPED or name.startswith(".venv")
