"""Which files of a project are watched, and their state at one moment.

The project's folder belongs to the author: folders in it may vanish while they are read, be unreadable, or link to
themselves. Unreadable files count as absent. Folders without source code of the author's (environments, caches,
outputs) are skipped.
"""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

MAX_FOLDERS = 20_000
SKIPPED = frozenset({"__pycache__", "node_modules", "outputs", "dist", "build"})
EVERY_PYTHON_FILE = (".",)

Stamp = tuple[int, ...]


class SourceTree(msgspec.Struct, frozen=True):
    """Files with their states (modification time in ns, size, inode), and the folders that contain them.

    `targets`: real paths of files reached through a link. `loose`: the targets of each link and of the folder itself.
    No notification reports when these disappear, so they are checked from time to time.
    """

    files: dict[str, Stamp] = {}
    folders: frozenset[str] = frozenset()
    targets: frozenset[str] = frozenset()
    loose: dict[str, Stamp | None] = {}


class Watched:
    """What `[dev] watch` in cozy.toml names: files, folders (their Python files), and patterns such as
    `prompts/**/*.txt`.

    Paths are relative to `root` and may point outside it (`../shared`). `cozy.toml` is always watched.
    """

    def __init__(self, root: Path, entries: Sequence[str] = EVERY_PYTHON_FILE) -> None:
        self.root = root
        self._wanted = [_Wanted(str(root), re.compile(r"cozy\.toml"), is_deep=False), *(_wanted(root, entry) for entry in entries)]

    @property
    def bases(self) -> tuple[Path, ...]:
        """The project's folder and every other named folder."""
        return tuple(Path(base) for base in dict.fromkeys([str(self.root), *(wanted.base for wanted in self._wanted)]))

    def takes(self, path: str) -> bool:
        """Whether a file with this path is watched."""
        return any(wanted.takes(path) for wanted in self._wanted)

    def read(self) -> SourceTree:
        """The current state of all watched files. Blocking: a millisecond for a usual project."""
        reading = _Reading()
        for wanted in self._wanted:
            reading.read(wanted)
        return SourceTree(reading.files, frozenset(reading.folders), frozenset(reading.targets), reading.loose)


def is_skipped(name: str) -> bool:
    """Whether files or folders with this name are skipped."""
    return name.startswith(".") or name in SKIPPED


def stamp_of(path: str) -> Stamp | None:
    """The state of a file; None when it is missing or unreadable."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def identity_of(path: str) -> Stamp | None:
    """Identifies a file or folder; unchanged when its content changes."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino


class _Wanted(msgspec.Struct, frozen=True):
    """One entry: files below `base`, a normalised path, that match `pattern`. `is_deep`: in subfolders, too."""

    base: str
    pattern: re.Pattern[str]
    is_deep: bool

    def takes(self, path: str) -> bool:
        prefix = self.base if self.base.endswith(os.sep) else self.base + os.sep
        if not path.startswith(prefix):
            return path == self.base
        return self.pattern.fullmatch(path[len(prefix) :].replace(os.sep, "/")) is not None


def _wanted(root: Path, entry: str) -> _Wanted:
    parts = entry.replace("\\", "/").split("/")
    fixed = next((number for number, part in enumerate(parts) if re.search(r"[*?\[]", part)), len(parts))
    base = os.path.normpath(os.path.join(root, "/".join(parts[:fixed]) or ("/" if fixed else ".")))
    pattern = parts[fixed:] or ["**", "*.py"]
    return _Wanted(base, re.compile("".join(_translated(pattern))), is_deep=len(pattern) > 1 or "**" in pattern)


def _translated(parts: Sequence[str]) -> Iterator[str]:
    """A regular expression for names joined by `/`; `**` stands for any number of folders."""
    for number, part in enumerate(parts):
        is_last = number == len(parts) - 1
        if part == "**":
            yield ".*" if is_last else "(?:.*/)?"
            continue
        for piece in re.findall(r"\*|\?|\[[^\]]+\]|.", part, re.DOTALL):
            if len(piece) > 1:
                inner = piece[1:-1].replace("\\", r"\\")
                yield f"[^{inner[1:]}]" if inner.startswith("!") else f"[{inner}]"
            else:
                yield {"*": "[^/]*", "?": "[^/]"}.get(piece, re.escape(piece))
        yield "" if is_last else "/"


class _Reading:
    """One walk over all entries."""

    def __init__(self) -> None:
        self.files: dict[str, Stamp] = {}
        self.folders: set[str] = set()
        self.targets: set[str] = set()
        self.loose: dict[str, Stamp | None] = {}

    def read(self, wanted: _Wanted) -> None:
        base = wanted.base
        self.loose[base] = identity_of(base)
        if not os.path.isdir(base):
            self._file(base, is_link=os.path.islink(base))
            if os.path.isdir(os.path.dirname(base)):
                self.folders.add(os.path.dirname(base))
            return
        visited: set[Stamp] = set()
        waiting = [base]
        while waiting and len(self.folders) < MAX_FOLDERS:
            folder = waiting.pop()
            identity = identity_of(folder)
            if identity is None or identity in visited:  # gone; or a link to a folder that was already read, maybe a parent
                continue
            visited.add(identity)
            entries = _entries(folder)
            if entries is not None:
                self.folders.add(folder)
                for entry in entries:
                    waiting += self._entry(entry, wanted)

    def _entry(self, entry: "os.DirEntry[str]", wanted: _Wanted) -> Iterator[str]:
        """Record a file; return a folder that must be read, too."""
        if is_skipped(entry.name):
            return
        try:
            is_link, is_folder = entry.is_symlink(), entry.is_dir()
        except OSError:  # a link to itself
            return
        fits = not is_folder and wanted.takes(entry.path)
        if is_link and (fits or wanted.is_deep):
            self.loose[entry.path] = identity_of(entry.path)
        if fits:
            self._file(entry.path, is_link=is_link)
        elif is_folder and wanted.is_deep and not os.path.exists(os.path.join(entry.path, "pyvenv.cfg")):
            yield entry.path

    def _file(self, path: str, *, is_link: bool) -> None:
        stamp = stamp_of(path)
        if stamp is not None:
            self.files[path] = stamp
            if is_link:
                self.targets.add(os.path.realpath(path))


def _entries(folder: str) -> "list[os.DirEntry[str]] | None":
    """The entries of a folder; None when it is unreadable."""
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError:
        return None
