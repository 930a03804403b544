"""Builders turn a project's source into a release."""

import asyncio
import hashlib
import shutil
from pathlib import Path
from typing import Protocol

import msgspec

from gen_orchestrator.child_environment import ChildEnvironment
from gen_orchestrator.hub.closed_folder import let_others_through
from gen_orchestrator.hub.discovery import discover
from gen_orchestrator.hub.environments import EnvironmentFailedError, Environments, Say
from gen_orchestrator.hub.folders import FolderError, digest_of, prune

ENVIRONMENTS = "environments"


class BuildFailedError(Exception):
    """No release can be made from the source; the message tells its author why."""


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What to make a release from: a project's source, in a folder that then belongs to the builder, or an image, by its reference."""

    owner: str
    source: Path
    image: str = ""


class Built(msgspec.Struct, frozen=True):
    """A release's manifest, and where its code is: a folder, or an image by its digest (`is_image`)."""

    manifest: bytes
    source: str


class Builder(Protocol):
    """Makes releases from sources. One build at a time."""

    async def build(self, order: Order, say: Say) -> Built:
        """Make a release, and report progress lines to its author. `BuildFailedError` when that is impossible."""
        ...


def is_image(source: str) -> bool:
    """Whether a release's source is an image: `REPOSITORY@sha256:HEX`, or `sha256:HEX` for one that was never pushed.
    Otherwise it is a folder.
    """
    return not source.startswith("/") and "sha256:" in source


class ProcessBuilder:
    """Releases that run as processes on this machine: an environment with the project's dependencies, and discovery in
    it.

    The source's folder is named after its owner and content, so an owner's same source is the same release, and nobody's
    code runs in, or goes with, a folder of another owner. Its environment is behind
    the link `.venv` there, as in the author's own folder.
    """

    def __init__(self, data: Path, environment: ChildEnvironment) -> None:
        self._data = data
        self._environment = environment
        self._environments = Environments(data / ENVIRONMENTS, environment)
        self._releases = data / "releases"

    async def build(self, order: Order, say: Say) -> Built:
        source = order.source
        try:
            await asyncio.to_thread(prune, source)
            name = hashlib.blake2b(f"{order.owner}/{await asyncio.to_thread(digest_of, source)}".encode(), digest_size=8).hexdigest()
            target = self._releases / f"published-{name}"
            manifest_path = target / "manifest.json"
            if not manifest_path.exists():
                python = await self._environments.python_for(source, say)
                if Path(python).is_relative_to(self._data):
                    await asyncio.to_thread(let_others_through, self._data, ENVIRONMENTS)
                manifest = await discover(python, source, self._environment, is_sent=True, say=say)
                target.mkdir(parents=True, exist_ok=True)
                await asyncio.to_thread(_keep, source, target, python, manifest)
            return Built(manifest_path.read_bytes(), str(target / "source"))
        except (FolderError, EnvironmentFailedError) as exc:
            raise BuildFailedError(str(exc)) from None


def _keep(source: Path, target: Path, python: str, manifest: bytes) -> None:
    """Move the source to where its release runs. The manifest is written last, so a folder that has it is complete."""
    kept = target / "source"
    if kept.exists():
        shutil.rmtree(kept)  # left by an interrupted build
    target.mkdir(parents=True, exist_ok=True)
    source.rename(kept)
    (kept / ".venv").symlink_to(Path(python).parent.parent)
    new = target / ".manifest.new"
    new.write_bytes(manifest)
    new.replace(target / "manifest.json")
