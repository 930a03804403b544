"""Copies models from a network disk to a local one before they are loaded. Blocking."""

import hashlib
import os
import secrets
import shutil
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec

from gen_worker.content.disk import Mount, mount_of
from gen_worker.content.progress import Progress
from gen_worker.errors import ResourceError
from gen_worker.net.wanted import DownloadCanceledError
from gen_worker.sources.source import LocalModel, ModelSource, ModelWant, as_run_errors

COPY_BYTES = 8 << 20
_FIRST = (".flashpack", ".safetensors")


class LocalCopies:
    """A source that provides models on a local disk: files that another source has on NFS are copied. The original is
    never moved.

    `limit_bytes` limits all copies together; the least recently used ones are removed first. An empty folder name turns
    this off. `in_shared_folder`: the folder is in /tmp, where another user could have put models of his own: it is used
    only if it is ours.
    """

    def __init__(
        self,
        source: ModelSource,
        folder: str,
        limit_bytes: int,
        mount: Callable[[Path], Mount | None] = mount_of,
        *,
        in_shared_folder: bool = False,
    ) -> None:
        self._source = source
        self._folder = Path(folder).expanduser() if folder else None
        self._in_shared_folder = in_shared_folder
        self._limit_bytes = limit_bytes
        self._mount = mount
        self._lock = threading.Lock()

    def present(self, want: ModelWant) -> LocalModel | None:
        found = self._source.present(want)
        if found is None or not self._is_remote(found.path):
            return found
        copy = self._copy_of(found)
        if not copy.exists():
            return None
        os.utime(copy)
        return _moved(found, copy)

    def fetch(self, want: ModelWant, progress: Progress, cancel: threading.Event) -> LocalModel:
        found = self._source.present(want) or self._source.fetch(want, progress, cancel)
        if not self._is_remote(found.path):
            return found
        copy = self._copy_of(found)
        with self._lock, as_run_errors(want.model_id):
            if not copy.exists():
                self._copy(found.path, copy, progress, cancel)
        return _moved(found, copy)

    def _is_remote(self, path: Path) -> bool:
        if self._folder is None:
            return False
        mount = self._mount(path)
        if mount is None or not mount.is_nfs:
            return False
        if self._in_shared_folder and not self._is_ours():
            return False  # read the original: slower, but no other user can have changed it
        here = self._mount(self._folder)
        return here is None or not here.is_nfs

    def _is_ours(self) -> bool:
        assert self._folder is not None
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            return all(_is_safe(path) for path in (self._folder, self._folder.parent))
        except OSError:
            return False

    def _copy_of(self, local: LocalModel) -> Path:
        assert self._folder is not None
        name = hashlib.sha256(f"{local.path}|{local.version}".encode()).hexdigest()[:32]
        return self._folder / name

    def _copy(self, source: Path, target: Path, progress: Progress, cancel: threading.Event) -> None:
        files = [source] if source.is_file() else sorted((p for p in source.rglob("*") if p.is_file()), key=_order)
        total = sum(file.stat().st_size for file in files)
        target.parent.mkdir(parents=True, exist_ok=True)
        if total > self._limit_bytes:
            raise ResourceError(
                f"disk_full: {total / 1e9:.2f} GB exceed the {self._limit_bytes / 1e9:.2f} GB of local copies; "
                "raise WORKER_LOCAL_CACHE_GB, or switch local copies off with an empty WORKER_LOCAL_MODEL_CACHE_DIR"
            )
        self._make_room(target.parent, total)
        progress.begin("localizing", total)
        building = target.with_name(f"{target.name}.{secrets.token_hex(4)}.building")
        try:
            for file in files:
                into = building if source.is_file() else building / file.relative_to(source)
                into.parent.mkdir(parents=True, exist_ok=True)
                _copy_file(file, into, progress, cancel)
            try:
                building.rename(target)
            except OSError:
                if not target.exists():  # otherwise another process was faster
                    raise
        finally:
            if building.is_dir():
                shutil.rmtree(building, ignore_errors=True)
            else:
                building.unlink(missing_ok=True)

    def _make_room(self, folder: Path, need_bytes: int) -> None:
        copies = sorted((path for path in folder.iterdir() if not path.name.endswith(".building")), key=lambda path: path.stat().st_mtime)
        sizes = {path: sum(p.stat().st_size for p in (path.rglob("*") if path.is_dir() else [path]) if p.is_file()) for path in copies}
        used = sum(sizes.values())
        for path in copies:
            if used + need_bytes <= self._limit_bytes:
                return
            used -= sizes[path]
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def _is_safe(folder: Path) -> bool:
    """Whether only this user and root can put files into a folder, or replace ours."""
    found = folder.stat()
    others_write = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return found.st_uid in (os.geteuid(), 0) and (not others_write or bool(found.st_mode & stat.S_ISVTX))


def _copy_file(source: Path, target: Path, progress: Progress, cancel: threading.Event) -> None:
    with source.open("rb") as reading, target.open("wb") as writing:
        while chunk := reading.read(COPY_BYTES):
            if cancel.is_set():
                raise DownloadCanceledError("the copy was cancelled")
            writing.write(chunk)
            progress.add(len(chunk))


def _order(path: Path) -> tuple[int, str]:
    """Weights first, because a reader waits for them."""
    return next((n for n, suffix in enumerate(_FIRST) if path.name.endswith(suffix)), len(_FIRST)), str(path)


def _moved(local: LocalModel, copy: Path) -> LocalModel:
    return msgspec.structs.replace(local, path=copy, localized=True)
