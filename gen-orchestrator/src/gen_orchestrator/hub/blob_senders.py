"""Remembers who has sent which blob of a model, until a version names it or the next collection after an hour.

    <folder>/<owner>/<hex>      an empty file; its time tells when the owner sent the blob, or last asked for it

The store keeps a blob once, whoever sends it. But a digest is no proof of having the bytes: whoever could push a list of
digests alone would get another owner's weights, and would learn from the answer which files the others have. So a blob
is there for an owner only if the owner has sent its bytes, or has a version that names it. Blocking, any thread.
"""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

from gen_orchestrator.domain.access import ALL_OWNERS
from gen_orchestrator.hub.model_records import SHARED_OWNER, Version
from gen_worker.shared_files import read_json


class BlobSenders:
    """Records in one folder. An operator (`ALL_OWNERS`) sees every owner's blobs, so nothing is recorded for one."""

    def __init__(self, folder: Path, repos: Path) -> None:
        """`repos`: the store's folder of versions."""
        self._folder = folder
        self._repos = repos

    def note(self, owner: str, digest: str) -> None:
        """The owner has sent this blob. `digest` in hexadecimal."""
        if owner == ALL_OWNERS:
            return
        path = self._folder / owner / digest
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()

    def held(self, owner: str, wanted: set[str]) -> set[str]:
        """Those of these blobs that the owner has sent, has in a version, or may read because everybody may. The records
        that are found count as new from now on, as the blobs do.
        """
        if owner == ALL_OWNERS:
            return wanted
        found = {digest for digest in wanted if self._has(owner, digest)}
        for path in (path for each in (owner, SHARED_OWNER) for path in (self._repos / each).glob("*/versions/*.json")):
            if found == wanted:
                break
            if (version := read_json(path, Version)) is not None:
                found |= wanted & {file.blake3 for file in version.files}
        return found

    def _has(self, owner: str, digest: str) -> bool:
        try:
            os.utime(self._folder / owner / digest)
        except FileNotFoundError:
            return False
        return True

    def collect(self, is_young: Callable[[os.stat_result], bool]) -> None:
        """Remove the records that are not recent: by now a version names the blob, or the push was given up."""
        for path in self._folder.glob("*/*"):
            with contextlib.suppress(FileNotFoundError):
                if not is_young(path.stat()):
                    path.unlink()
