"""Project folders as releases: a copy of the source, so that a release stays what it was while the author goes on editing."""

import asyncio
import hashlib
import os
import shutil
import sys
from pathlib import Path

import msgspec

MAX_FILES = 20_000
MAX_BYTES = 512 << 20
SKIPPED = frozenset({".git", ".venv", "__pycache__", "node_modules", "outputs", ".mypy_cache", ".ruff_cache", ".pytest_cache", "dist"})
DISCOVER_TIMEOUT_S = 300.0


class FolderError(Exception):
    """A folder that cannot be served; the message says why and what helps."""


class Snapshot(msgspec.Struct, frozen=True):
    """A copied project: where, its manifest, and the interpreter that runs it."""

    folder: Path
    manifest: bytes
    python: str


def files_of(folder: Path) -> list[Path]:
    """The files that a release of this folder consists of, sorted. `FolderError` when there are too many for a project."""
    found: list[Path] = []
    size_bytes = 0
    for parent, names, files in os.walk(folder):
        names[:] = [name for name in names if not _is_skipped(name)]
        for name in files:
            path = Path(parent) / name
            if name.endswith(".pyc") or not path.is_file():
                continue
            found.append(path)
            size_bytes += path.stat().st_size
            if len(found) > MAX_FILES or size_bytes > MAX_BYTES:
                raise FolderError(
                    f"{folder} holds more than {MAX_FILES} files or {MAX_BYTES >> 20} MiB; serve the project's own folder, "
                    "and keep models and data outside of it"
                )
    return sorted(found)


def digest_of(folder: Path) -> str:
    """A digest of names and contents, in hex: equal while nothing has changed."""
    digest = hashlib.blake2b(digest_size=16)
    for path in files_of(folder):
        digest.update(os.fsencode(path.relative_to(folder)) + b"\0")
        digest.update(hashlib.blake2b(path.read_bytes()).digest())
    return digest.hexdigest()


def prune(folder: Path) -> None:
    """Remove what no release consists of: it has no part in the digest, and so must not be there."""
    for parent, names, files in os.walk(folder):
        for name in [name for name in names if _is_skipped(name)]:
            shutil.rmtree(Path(parent) / name)
            names.remove(name)
        for name in files:
            if name.endswith(".pyc"):
                (Path(parent) / name).unlink()


def interpreter_of(folder: Path) -> str:
    """The project's own environment where it has one, else the one that runs this program."""
    own = folder / ".venv" / "bin" / "python"
    return str(own) if own.exists() else sys.executable


async def snapshot(folder: Path, into: Path) -> Snapshot:
    """Copy a project below `into`, and read its manifest. `FolderError` with what discovery says, where the code is broken."""
    digest = await asyncio.to_thread(digest_of, folder)
    target = into / f"{folder.name}-{digest[:16]}"
    python = interpreter_of(folder)
    manifest_path = target / "manifest.json"
    if not manifest_path.exists():
        source = target / "source"
        await asyncio.to_thread(_copy, folder, source)
        manifest = await discover(python, source)
        new = target / ".manifest.new"
        new.write_bytes(manifest)
        new.replace(manifest_path)
    return Snapshot(target / "source", manifest_path.read_bytes(), python)


def _copy(folder: Path, target: Path) -> None:
    if target.exists():
        shutil.rmtree(target)  # an earlier try that was cut off
    for path in files_of(folder):
        copy = target / path.relative_to(folder)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, copy)


async def discover(python: str, source: Path) -> bytes:
    """The manifest of a project's source. `FolderError` with what discovery says, where the code is broken."""
    process = await asyncio.create_subprocess_exec(
        python, "-m", "gen_worker.discover", cwd=source, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(DISCOVER_TIMEOUT_S):
            out, err = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise FolderError(f"reading the functions of {source} took longer than {DISCOVER_TIMEOUT_S:.0f} s") from None
    if process.returncode != 0:
        raise FolderError(err.decode(errors="replace").strip()[-4000:] or f"discovery ended with status {process.returncode}")
    return out


def _is_skipped(name: str) -> bool:
    return name in SKIPPED or name.startswith(".venv")
