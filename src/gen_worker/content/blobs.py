"""Downloads blobs into a folder. One process fetches a blob while the others wait; they take over when that process dies."""

import os
import secrets
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import msgspec

from gen_worker.content.disk import has_size
from gen_worker.content.lease_file import LeaseFile
from gen_worker.content.progress import Progress
from gen_worker.content.seals import Seals
from gen_worker.net.disk_calls import share_bytes
from gen_worker.net.download import fetch
from gen_worker.net.range_client import RangeClient
from gen_worker.net.wanted import DownloadCanceledError, Policy, Wanted

COPIED_BYTES = 4 << 20
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
    """Make sure every blob is here; the number of bytes that this call fetched. `on_blob` is called for each blob that
    it fetched, once it is complete and its digest is correct. Raises what `net.download.fetch` raises.
    """

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
            # Checked after taking the lease: its last owner may have finished in between.
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
    """Whether the finished blob is here. Only correct content ever gets that name."""
    return has_size(file.path, file.size_bytes)


def drop_damaged(wanted: Iterable[Wanted], seals: Seals, *, unsealed: bool) -> None:
    """Remove blobs that are here but damaged, so that they are fetched again; `unsealed` as in `Seals.is_damaged`."""
    for file in wanted:
        if file.digest and is_present(file) and seals.is_damaged(file.path, file.digest, unsealed=unsealed):
            file.path.unlink(missing_ok=True)


def link_near(wanted: Iterable[Wanted], near: Path, seals: Seals) -> None:
    """Hard-link the correct blobs of a neighbour's folder. Blobs that cannot be linked are left for `copy_near`."""
    for file in wanted:
        theirs = _near(file, near, seals)
        if theirs is None:
            continue
        try:
            file.path.parent.mkdir(parents=True, exist_ok=True)
            with seals.keeping({theirs: file.digest}):
                os.link(theirs, file.path, follow_symlinks=False)
            seals.seal(file.path, file.digest)
        except OSError:  # on another disk, or another process was faster
            continue


class Copied(msgspec.Struct, frozen=True):
    """Files copied from a neighbour, how many of them share their bytes with it, and their size in bytes."""

    files: int = 0
    shared: int = 0
    size_bytes: int = 0


def copy_near(
    wanted: Iterable[Wanted], near: Path, seals: Seals, progress: Progress, on_blob: Callable[[Path], None], cancel: threading.Event
) -> Copied:
    """Copy correct blobs from a neighbour's folder on another file system, where hard links do not work. Where the file
    system supports it, the copy shares its bytes with the original. Blobs that cannot be copied are left to be fetched.
    The caller has made room.
    """
    found = Copied()
    for file in wanted:
        theirs = _near(file, near, seals)
        if theirs is None or cancel.is_set():
            continue
        new = file.path.with_name(f".copy-{secrets.token_hex(6)}")
        try:
            file.path.parent.mkdir(parents=True, exist_ok=True)
            shared = _copy(theirs, new, progress, cancel)
            if cancel.is_set():
                continue
            new.chmod(0o444)
            new.replace(file.path)
            seals.seal(file.path, file.digest)
        except OSError:
            if new.exists():
                progress.add(-new.stat().st_size)  # they will come by another way
            continue
        finally:
            new.unlink(missing_ok=True)
        found = Copied(found.files + 1, found.shared + shared, found.size_bytes + file.size_bytes)
        on_blob(file.path)
    return found


def _near(file: Wanted, near: Path, seals: Seals) -> Path | None:
    """A neighbour's blob that is correct and missing here."""
    name = file.path.name
    theirs = near / name[:2] / name[2:4] / name
    missing = not is_present(file) and has_size(theirs, file.size_bytes)
    return theirs if missing and not seals.is_damaged(theirs, file.digest, unsealed=True) else None


def _copy(source: Path, target: Path, progress: Progress, cancel: threading.Event) -> bool:
    """Copy a file, sharing its bytes if the file system supports that; returns whether it did."""
    with source.open("rb") as from_file, target.open("xb") as to_file:
        if share_bytes(from_file.fileno(), to_file.fileno()):
            progress.add(os.fstat(to_file.fileno()).st_size)
            return True
        while not cancel.is_set() and (piece := from_file.read(COPIED_BYTES)):
            to_file.write(piece)
            progress.add(len(piece))
        to_file.flush()
        os.fsync(to_file.fileno())
        return False
