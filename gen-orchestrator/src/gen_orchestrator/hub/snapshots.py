"""Copies a project's folder as it is now, with its manifest."""

import asyncio
from pathlib import Path

import msgspec

from gen_orchestrator.child_environment import ChildEnvironment
from gen_orchestrator.hub.discovery import discover
from gen_orchestrator.hub.folders import copy_files, digest_of, interpreter_of


class Snapshot(msgspec.Struct, frozen=True):
    """A copied project: its folder, its manifest, and the interpreter that runs it."""

    folder: Path
    manifest: bytes
    python: str


async def snapshot(folder: Path, into: Path, environment: ChildEnvironment) -> Snapshot:
    """Copy a project below `into`, and read its manifest. `FolderError` with discovery's message when the code is broken."""
    digest = await asyncio.to_thread(digest_of, folder)
    target = into / f"{folder.name}-{digest[:16]}"
    python = interpreter_of(folder)
    manifest_path = target / "manifest.json"
    if not manifest_path.exists():
        source = target / "source"
        await asyncio.to_thread(copy_files, folder, source)
        manifest = await discover(python, source, environment)
        new = target / ".manifest.new"
        new.write_bytes(manifest)
        new.replace(manifest_path)
    return Snapshot(target / "source", manifest_path.read_bytes(), python)
