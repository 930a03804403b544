"""Unpacks a project's source, an untrusted gzip tar.

Only regular files and folders with names inside the folder are accepted. Limits apply while reading, before anything of that size is in
memory or on disk. Links, devices, sparse files, absolute names, `..`, and a name that comes twice are refused with the entry's name.
Header blocks are decoded by `tarfile`; the walk over them is ours, since `tarfile` reads extended headers of any size.
"""

import gzip
import tarfile
import unicodedata
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

import msgspec

from gen_worker.net.writing_out import WritingOut

BLOCK = 512
MAX_HEADER_BYTES = 64 << 10
MAX_PART_BYTES = 255
MAX_PADDING_BYTES = 1 << 20
MAX_DEPTH = 40


class ArchiveError(ValueError):
    """An archive that is refused; the message names the entry and says what is wrong."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Limits: entries, bytes of all files together, and the ratio of those to the archive's size."""

    entries: int = 20_000
    size_bytes: int = 512 << 20
    ratio: int = 100


LIMITS = Limits()


def unpack(archive: IO[bytes], archive_bytes: int, into: Path, limits: Limits = LIMITS) -> int:
    """Write an archive's files below `into`, an empty folder; returns their number. `ArchiveError` when it is refused;
    part of it may then be on disk.

    Files are 0644, or 0755 if their owner may execute them.
    """
    most = min(limits.size_bytes, max(archive_bytes * limits.ratio, 1 << 20))
    names: set[str] = set()
    entries = files = size_bytes = 0
    with gzip.GzipFile(fileobj=archive) as stream:
        try:
            for member in _members(stream):
                entries += 1
                if entries > limits.entries:
                    raise ArchiveError(f"the archive has more than {limits.entries} entries")
                name = _checked(member.name)
                if name is None:
                    continue  # the folder itself
                if name in names:
                    raise ArchiveError(f"{name!r} is there twice")
                names.add(name)
                target = into / name
                try:
                    if member.type == tarfile.DIRTYPE:
                        target.mkdir(parents=True, exist_ok=True)
                        continue
                    size_bytes += member.size
                    if size_bytes > most:
                        raise ArchiveError(
                            f"the files have more than {most} bytes (the limits are {limits.size_bytes >> 20} MiB and {limits.ratio} "
                            "times the archive's size): keep models and data outside of the project"
                        )
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with target.open("xb") as file:
                        out = WritingOut(file)
                        for chunk in _content(stream, member.size, name):
                            out.write(chunk)
                    target.chmod(0o755 if member.mode & 0o100 else 0o644)
                except (FileExistsError, NotADirectoryError):
                    raise ArchiveError(f"{name!r} is a file and a folder") from None
                files += 1
            _end(stream)
        except (OSError, EOFError, zlib.error) as exc:
            if isinstance(exc, OSError) and not isinstance(exc, gzip.BadGzipFile):
                raise
            raise ArchiveError(f"this is not a complete gzip file: {exc}") from None
    return files


def _members(stream: gzip.GzipFile) -> Iterator[tarfile.TarInfo]:
    """Entries with their full names. The caller reads a file's content before it requests the next entry."""
    long_name: str | None = None
    while True:
        block = stream.read(BLOCK)
        if not block.strip(b"\0"):
            if len(block) == BLOCK:
                return
            raise ArchiveError("the archive ends in the middle" if block else "the archive has no end mark: it was cut off")
        try:
            member = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.HeaderError as exc:
            raise ArchiveError(f"this is not a tar archive: {exc}") from None
        if member.size < 0:
            raise ArchiveError(f"{_shown(member.name)} has a negative size")
        if member.type in (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME):
            if member.size > MAX_HEADER_BYTES:
                raise ArchiveError(f"an extended header of {member.size} bytes; at most {MAX_HEADER_BYTES}")
            data = b"".join(_content(stream, member.size, "an extended header"))
            if member.type == tarfile.GNUTYPE_LONGNAME:
                long_name = data.rstrip(b"\0").decode("utf-8", "surrogateescape")
            elif member.type == tarfile.XHDTYPE:
                long_name = _pax_path(data) or long_name
            continue
        if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE):
            raise ArchiveError(
                f"{_shown(member.name)} is {_KINDS.get(member.type, 'of an unknown kind')}; only files and folders are accepted"
            )
        if long_name is not None:
            member.name, long_name = long_name, None
        if member.type == tarfile.AREGTYPE and member.name.endswith("/"):
            member.type = tarfile.DIRTYPE  # in old archives
        if member.type == tarfile.DIRTYPE and member.size:
            raise ArchiveError(f"{_shown(member.name)} is a folder with content")
        yield member


def _end(stream: gzip.GzipFile) -> None:
    """Read what follows the end mark: padding. Only there does gzip compare its checksum."""
    padding = 0
    while chunk := stream.read(BLOCK * 20):
        padding += len(chunk)
        if chunk.strip(b"\0") or padding > MAX_PADDING_BYTES:
            raise ArchiveError("there is something after the archive's end mark; expected one tar archive")


_KINDS = {
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.LNKTYPE: "a hard link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a pipe",
    tarfile.GNUTYPE_SPARSE: "a sparse file",
}


def _pax_path(data: bytes) -> str | None:
    """The path of an extended header; `ArchiveError` when it declares its own size or is malformed."""
    found = None
    while data:
        length, space, _ = data.partition(b" ")
        if not space or not length.isdigit() or len(length) > 8 or int(length) > len(data) or int(length) <= len(length) + 1:
            raise ArchiveError("an extended header is malformed")
        record, data = data[len(length) + 1 : int(length)], data[int(length) :]
        key, equals, value = record.rstrip(b"\n").partition(b"=")
        if not equals or key == b"size" or key.startswith(b"GNU.sparse"):
            raise ArchiveError(f"an extended header says {key[:40]!r}, which is not supported")
        if key == b"path":
            found = value.decode("utf-8", "surrogateescape")
    return found


def _content(stream: gzip.GzipFile, size_bytes: int, name: str) -> Iterator[bytes]:
    left = size_bytes
    while left:
        chunk = stream.read(min(left, 1 << 20))
        if not chunk:
            raise ArchiveError(f"the archive ends in the middle of {name!r}")
        left -= len(chunk)
        yield chunk
    padding = -size_bytes % BLOCK
    if len(stream.read(padding)) != padding:
        raise ArchiveError(f"the archive ends after {name!r}")


def _checked(name: str) -> str | None:
    """The entry's name, relative and normalised; None for the folder itself."""
    if "\\" in name or any("\ud800" <= letter <= "\udfff" or unicodedata.category(letter) == "Cc" for letter in name):
        raise ArchiveError(f"{_shown(name)} is not a valid file name")
    if name.startswith("/"):
        raise ArchiveError(f"{_shown(name)} is an absolute name")
    parts = [part for part in PurePosixPath(name).parts if part != "."]
    if ".." in parts:
        raise ArchiveError(f"{_shown(name)} leads outside the folder")
    if any(len(part.encode()) > MAX_PART_BYTES for part in parts) or len(parts) > MAX_DEPTH:
        raise ArchiveError(f"{_shown(name)} is too long or too deep")
    return "/".join(parts) or None


def _shown(name: str) -> str:
    return ascii(name[:100])
