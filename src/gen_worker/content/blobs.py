"""Blobs to a folder, each fetched by one process: whoever else wants it waits, and takes over when the owner dies."""

import os
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from gen_worker.content.disk import has_size
from gen_worker.content.lease_file import LeaseFile
from gen_worker.content.progress import Progress
from gen_worker.content.seals import Seals
from gen_worker.net.download import fetch
from gen_worker.net.range_client import RangeClient
from gen_worker.net.wanted import DownloadCanceledError, Policy, Wanted

WAIT_S = 0.05


class _Meter:
    """Counts bytes and keeps the leases alive."""

    def __init__(self, progress: Progress, leases: Sequence[LeaseFile]) -> None:
        self._progress = progress
        self._leases = leases

    def add(self, size_bytes: int) -> None:
        self._progress.add(size_bytes)
        for lease in self._leases:
            lease.touch()


def fetch_blobs(
    wanted: Sequence[Wanted],
    locks: Path,
    client: RangeClient,
    policy: Policy,
    progress: Progress,
    cancel: threading.Event,
    on_blob: Callable[[Path], None] = lambda path: None,
    seals: Seals | None = None,
) -> int:
    """Have every blob; how many bytes this call fetched. `on_blob` hears of each one that it fetched, when it is complete and right. Errors
    as of `net.download.fetch`."""

    def arrived(file: Wanted) -> None:
        if seals is not None and file.digest:
            seals.seal(file.path, file.digest)
        on_blob(file.path)

    missing, fetched = {file.path: file for file in wanted}, 0
    while missing:
        leases = {path: LeaseFile(locks / f"{path.name}.lock") for path in missing}
        held: dict[Path, LeaseFile] = {}
        try:
            for path, lease in leases.items():
                if lease.try_acquire():
                    held[path] = lease
            # Looked at after the lease: its last owner may have finished in between.
            ready = [path for path in missing if is_present(missing[path])]
            for path in ready:
                progress.add(missing.pop(path).size_bytes)
            mine = [file for path, file in missing.items() if path in held]
            if mine:
                meter = _Meter(progress, list(held.values()))
                fetch(mine, client, meter, cancel, policy=policy, on_file=arrived)
                fetched += sum(file.size_bytes for file in mine)
                for file in mine:
                    del missing[file.path]
        finally:
            for lease in held.values():
                lease.release()
        if missing and cancel.wait(WAIT_S):
            raise DownloadCanceledError("the download was cancelled")
    return fetched


def is_present(file: Wanted) -> bool:
    """Whether the finished blob is here; only right content ever gets that name."""
    return has_size(file.path, file.size_bytes)


def drop_damaged(wanted: Iterable[Wanted], seals: Seals, *, unsealed: bool) -> None:
    """Remove the blobs that are here and no longer right, so that they come again; `unsealed` as `Seals.is_damaged` has it."""
    for file in wanted:
        if file.digest and is_present(file) and seals.is_damaged(file.path, file.digest, unsealed=unsealed):
            file.path.unlink(missing_ok=True)


def link_near(wanted: Iterable[Wanted], near: Path, seals: Seals) -> None:
    """Give the blobs that a neighbour's folder has, and that are right, a name here, too. What cannot be linked is left to be fetched."""
    for file in wanted:
        name = file.path.name
        theirs = near / name[:2] / name[2:4] / name
        if is_present(file) or not has_size(theirs, file.size_bytes) or seals.is_damaged(theirs, file.digest, unsealed=True):
            continue
        try:
            file.path.parent.mkdir(parents=True, exist_ok=True)
            with seals.keeping({theirs: file.digest}):
                os.link(theirs, file.path, follow_symlinks=False)
            seals.seal(file.path, file.digest)
        except OSError:  # another disk, or somebody was quicker
            continue
