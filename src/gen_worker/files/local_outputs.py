"""Saved files in a folder: the output store of the dev runner, the CLI and tests."""

import hashlib
import mimetypes
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from gen_worker.authoring.assets import Asset
from gen_worker.shared_files import is_plain_file

MAX_REF_LENGTH = 1024
MAX_REF_PARTS = 64
COPIED_BYTES = 1 << 20


def normalize_output_ref(ref: str) -> str:
    """The logical path for `ref`, with `/` between parts and no leading slash.

    `ValueError` when it is not a relative path: empty, a URL, `..`, control characters, or too long. The same rule
    applies wherever files are saved.
    """
    text = ref.strip()
    shown = repr(text[:200])
    if not text:
        raise ValueError("output ref is empty; expected a path such as 'runs/<run_id>/outputs/picture.png'")
    if len(text) > MAX_REF_LENGTH:
        raise ValueError(f"output ref of {len(text)} characters; at most {MAX_REF_LENGTH} are allowed")
    if "://" in text:
        raise ValueError(f"output ref {shown} is a URL; expected a path such as 'runs/<run_id>/outputs/picture.png'")
    if any(not char.isprintable() for char in text):
        raise ValueError(f"output ref {shown} holds a control character")
    parts = [part for part in text.replace("\\", "/").split("/") if part not in ("", ".")]
    if ".." in parts:
        raise ValueError(f"output ref {shown}: path traversal ('..') is not allowed")
    if not parts or len(parts) > MAX_REF_PARTS:
        raise ValueError(f"output ref {shown} must name a file, at most {MAX_REF_PARTS} folders deep")
    if any(len(part.encode()) > 255 for part in parts):
        raise ValueError(f"output ref {shown} has a part of more than 255 bytes")
    return "/".join(parts)


@contextmanager
def clashes_named(ref: str) -> Iterator[None]:
    """`ValueError` for a ref that would need a file where another ref needs a folder."""
    try:
        yield
    except (NotADirectoryError, IsADirectoryError, FileExistsError):
        raise ValueError(f"output ref {ref[:200]!r} clashes with a saved file: a name is a file or a folder, not both") from None


class LocalOutputs:
    """Writes `<root>/<ref>`: a temporary file first, then renamed, so that readers never see half a file."""

    def __init__(self, root: Path, max_bytes: int = 0, saved: Callable[[Asset], None] | None = None) -> None:
        self._root = root
        self._max_bytes = max_bytes
        self._saved = saved

    def save_bytes(self, ref: str, data: bytes, *, create: bool) -> Asset:
        def write(file: BinaryIO) -> str:
            file.write(data)
            return hashlib.sha256(data).hexdigest()  # without the interpreter's lock

        return self._save(ref, len(data), write, create=create)

    def save_file(self, ref: str, path: Path, *, create: bool) -> Asset:
        with path.open("rb") as source:
            size_bytes = os.fstat(source.fileno()).st_size
            return self._save(ref, size_bytes, lambda file: _copied(source, file), create=create)

    def path_of(self, ref: str) -> Path:
        """Where a ref would be saved; `ValueError` when a folder on the way is a symbolic link. A link at the file's
        own place is replaced.
        """
        path = self._root / normalize_output_ref(ref)
        if path.parent.resolve() != self._root.resolve() / path.parent.relative_to(self._root):
            raise ValueError(f"output ref {ref[:200]!r}: path traversal (a folder on the way is a link)")
        return path

    def find(self, ref: str) -> Path | None:
        """A saved file; None when there is none. Only what a save creates is served: a regular file with one name,
        below the folder, with no symbolic link on the way. Anything else could be someone's way to another file of this
        machine.
        """
        try:
            parts = normalize_output_ref(ref).split("/")
        except ValueError:
            return None
        return self._root.joinpath(*parts) if is_plain_file(self._root, parts) else None

    def _save(self, ref: str, size_bytes: int, write: Callable[[BinaryIO], str], *, create: bool) -> Asset:
        if self._max_bytes and size_bytes > self._max_bytes:
            raise ValueError(
                f"output file too large: {ref[:200]!r} has {size_bytes} bytes, "
                f"at most {self._max_bytes} are allowed (WORKER_MAX_UPLOAD_BYTES)"
            )
        path = self.path_of(ref)
        with clashes_named(ref):
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.is_dir():
                raise IsADirectoryError
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".saving-")
        temporary = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                digest = write(file)
            temporary.chmod(0o644)
            if create:
                os.link(temporary, path)  # fails if the name is taken, even when two runs race for it
            else:
                temporary.replace(path)
        except FileExistsError:
            raise RuntimeError(f"output path already exists: {ref[:200]!r}; save_bytes and save_file replace it") from None
        finally:
            temporary.unlink(missing_ok=True)
        asset = Asset(
            ref=normalize_output_ref(ref),
            local_path=str(path),
            mime_type=mimetypes.guess_type(path.name)[0],
            size_bytes=size_bytes,
            sha256=digest,
        )
        if self._saved is not None:
            self._saved(asset)
        return asset


def _copied(source: BinaryIO, target: BinaryIO) -> str:
    """Copy everything; returns its SHA-256."""
    hasher = hashlib.sha256()
    while chunk := source.read(COPIED_BYTES):
        target.write(chunk)
        hasher.update(chunk)
    return hasher.hexdigest()
