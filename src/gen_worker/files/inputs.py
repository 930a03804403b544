"""Turns Asset inputs into local files: every file that a caller refers to is on disk, checked, when the function runs."""

import asyncio
import base64
import binascii
import contextlib
import mimetypes
import os
import re
import secrets
import threading
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote_to_bytes

import msgspec

from gen_worker.authoring.assets import Asset, fill_asset
from gen_worker.authoring.found_assets import find_assets
from gen_worker.errors import CanceledError, FieldError, RetryableError, ValidationError
from gen_worker.files.file_api import RETRIES, FileApi, FileTooLargeError
from gen_worker.files.input_cache import InputCache, file_sha256
from gen_worker.names import RUN_ID_RULE, is_run_id
from gen_worker.net.guard import BlockedURLError, DownloadError, GuardedDownloader, TooLargeError
from gen_worker.net.retry import HttpError, PassingError, Retries, is_passing
from gen_worker.scratch import Owned, own
from gen_worker.shared_files import open_own
from gen_worker.texts import counted

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_DATA_URI = re.compile(r"data:(?P<mime>[\w.+-]+/[\w.+-]+)?(?P<params>(?:;[\w.+-]+=[^;,]*)*)(?P<base64>;base64)?,", re.IGNORECASE)
_MAGIC = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
)

NO_FILE_API = "a file ref needs the run's file_base_url and file_token, which the scheduler did not send"

Lookup = Callable[[str], Path | None]


class InputFiles:
    """Puts the files of runs into `<run_dir>/<run_id>/inputs/` and removes them afterwards.

    `lookup` finds logical refs: in the dev runner, files saved by earlier runs. Without it they come from the run's
    file API, and are kept in `cache`.
    """

    def __init__(
        self,
        run_dir: Path,
        lookup: Lookup | None,
        *,
        max_bytes: int,
        retries: int = RETRIES.tries,
        downloader: GuardedDownloader | None = None,
        cache: InputCache | None = None,
    ) -> None:
        self._run_dir = run_dir
        self._lookup = lookup
        self._cache = cache
        self._max_bytes = max_bytes
        self._retries = Retries(msgspec.structs.replace(RETRIES, tries=max(1, retries)))
        self._downloader = downloader or GuardedDownloader()

    def of_run(self, run_id: str) -> "RunInputs":
        """The input files of one execution; `ValueError` for an id that could lead outside the run folder."""
        if not is_run_id(run_id):
            raise ValueError(f"run_id {run_id[:100]!r}; {RUN_ID_RULE}")
        return RunInputs(self, self._run_dir, run_id)

    def put_in_place(
        self, asset: Asset, folder: Path, index: int, uploads: Mapping[str, Path], owner: str | None, api: FileApi | None
    ) -> None:
        """Bring one file to `folder` and set its facts. Waits for the network: call it in a thread."""
        if self._lookup is None and asset.ref not in uploads and not _is_url(asset.ref):
            self._from_file_api(asset, self._room(folder, index, asset.ref), owner or "", api)
        else:
            _describe(asset, self._fetch(asset, folder, index, uploads))

    def _from_file_api(self, asset: Asset, path: Path, owner: str, api: FileApi | None) -> None:
        if api is None:
            raise RuntimeError(NO_FILE_API)
        known = api.stat(asset.ref)
        if self._max_bytes > 0 and (known.size_bytes or 0) > self._max_bytes:
            raise TooLargeError(
                f"{asset.ref[:200]!r} has {known.size_bytes} bytes; at most {self._max_bytes} are allowed (WORKER_MAX_INPUT_FILE_BYTES)"
            )
        digest = known.sha256
        cache = self._cache if digest else None
        if cache is not None and digest and cache.copy_to(path, owner, digest):
            if file_sha256(path) == digest:
                _describe(asset, path, known.mime_type, digest)
                return
            cache.discard(owner, digest)
            path.unlink()
        api.fetch(asset.ref, path, max(0, self._max_bytes))
        found = file_sha256(path)
        if digest and found != digest:
            raise RetryableError(f"input {asset.ref[:200]!r} arrived with the digest {found[:16]}..., declared is {digest[:16]}...")
        if cache is not None:
            cache.keep(path, owner, found)
        _describe(asset, path, known.mime_type, found)

    def _fetch(self, asset: Asset, folder: Path, index: int, uploads: Mapping[str, Path]) -> Path:
        ref = asset.ref
        if ref in uploads:
            return self._checked(uploads[ref], ref)
        found_scheme = _SCHEME.match(ref[:64])
        scheme = found_scheme[1].lower() if found_scheme else ""
        if scheme in ("http", "https"):
            return self._download(ref, self._room(folder, index, ref))
        if scheme == "data":
            return self._decode_data_uri(ref, self._room(folder, index, ""), asset)
        if "://" in ref[:64]:
            raise BlockedURLError(f"scheme {scheme!r}; expected http, https or data")
        found = self._lookup(ref) if self._lookup is not None else None
        if found is None or not found.is_file():
            raise _NoSuchFileError(f"there is no file under the ref {ref[:200]!r}; send a data URI, an https URL or a multipart upload")
        return self._checked(found, ref)

    def _room(self, folder: Path, index: int, url: str) -> Path:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        suffix = PurePosixPath(re.split("[?#]", url, maxsplit=1)[0][-64:]).suffix
        return folder / f"{index:04d}{suffix if re.fullmatch(r'[.][A-Za-z0-9]{1,10}', suffix) else ''}"

    def _checked(self, path: Path, ref: str) -> Path:
        size_bytes = path.stat().st_size
        if self._max_bytes > 0 and size_bytes > self._max_bytes:
            raise TooLargeError(
                f"{ref[:200]!r} has {size_bytes} bytes; at most {self._max_bytes} are allowed (WORKER_MAX_INPUT_FILE_BYTES)"
            )
        return path

    def _download(self, url: str, path: Path) -> Path:
        tries = 0

        def one_try() -> None:
            nonlocal tries
            tries += 1
            try:
                self._downloader.fetch(url, path, max(0, self._max_bytes))
            except DownloadError as exc:
                if exc.status is None:
                    raise PassingError(str(exc)) from exc
                raise HttpError(exc.status, self._downloader.check(url).host, exc.asked_s) from exc

        try:
            self._retries.call(one_try, threading.Event().wait)
        except (PassingError, HttpError) as exc:
            if not is_passing(exc):
                raise _NoSuchFileError(f"input url: {exc}") from None
            raise RetryableError(f"input url: {exc}, {counted(tries, 'try', 'tries')}") from None
        return path

    def _decode_data_uri(self, uri: str, path: Path, asset: Asset) -> Path:
        found = _DATA_URI.match(uri)
        if found is None:
            raise _NoSuchFileError(f"data URI {uri[:40]!r} cannot be read; expected data:<type>;base64,<data>")
        body = uri[found.end() :]
        try:
            data = base64.b64decode(body, validate=True) if found["base64"] else unquote_to_bytes(body)
        except (binascii.Error, ValueError) as exc:
            raise _NoSuchFileError(f"data URI {uri[:40]!r}: its base64 cannot be read: {exc}") from None
        with os.fdopen(open_own(path, os.O_WRONLY | os.O_TRUNC), "wb") as file:
            file.write(data)
        # The file has the content; a copy in the payload is of no use.
        fill_asset(asset, mime_type=asset.mime_type or found["mime"], ref=f"{uri[: found.end()]}...")
        return self._checked(path, asset.ref)


class RunInputs:
    """The input files of one execution, until `close`.

    They are in a folder created by this execution: `<run_id>`, or `<run_id>~<random>` if that exists. An id may be
    reused while the code of an interrupted run with the same id still reads its files; neither removes or replaces the
    other's files.
    """

    def __init__(self, files: InputFiles, run_dir: Path, run_id: str) -> None:
        self._files = files
        self._run_dir = run_dir
        self._run_id = run_id
        self._owned: Owned | None = None
        self._lock = threading.Lock()
        self._fetching = 0  # running fetch threads; a cancelled run does not wait for them
        self._closed = False

    async def materialize(self, payload: Any, uploads: Mapping[str, Path], owner: str | None, api: FileApi | None = None) -> None:
        """Set `local_path`, size, digest and type of every Asset in the payload; `ValidationError` names the asset at fault."""
        for index, (pointer, asset) in enumerate(find_assets(payload)):
            try:
                await asyncio.to_thread(self._fetch, asset, index, uploads, owner, api)
            except (BlockedURLError, TooLargeError, FileTooLargeError, _NoSuchFileError) as exc:
                raise ValidationError(f"{pointer}: {exc}", errors=(FieldError(pointer, str(exc)),)) from exc
            # Taken from the run's sender: if the payload decided, a caller could pretend to own a file.
            fill_asset(asset, owner=owner)

    def close(self) -> None:
        """Remove the files; a file that is being fetched is removed when its fetch ends."""
        self._count(0, closed=True)

    def _fetch(self, asset: Asset, index: int, uploads: Mapping[str, Path], owner: str | None, api: FileApi | None) -> None:
        self._count(1)
        try:
            if self._closed:
                raise CanceledError("canceled")
            self._files.put_in_place(asset, self._folder(), index, uploads, owner, api)
        finally:
            self._count(-1)

    def _count(self, change: int, *, closed: bool = False) -> None:
        with self._lock:
            self._fetching += change
            self._closed = self._closed or closed
            over = self._closed and self._fetching == 0
        if over:
            self._remove()

    def _folder(self) -> Path:
        if self._owned is None:
            self._run_dir.mkdir(parents=True, exist_ok=True)
            name = self._run_id
            while True:
                with contextlib.suppress(FileExistsError):  # created by another execution or another program
                    (self._run_dir / name).mkdir(mode=0o700)
                    self._owned = own(self._run_dir / name)
                if self._owned is not None:
                    break
                name = f"{self._run_id}~{secrets.token_hex(4)}"  # an id never contains `~`
        return self._owned.folder / "inputs"

    def _remove(self) -> None:
        if self._owned is not None:
            self._owned.remove()


class _NoSuchFileError(ValueError):
    pass


def sniff_mime(path: Path) -> str:
    """The MIME type of a file by its first bytes, otherwise by its name."""
    with path.open("rb") as file:
        head = file.read(16)
    for magic, mime in _MAGIC:
        if head.startswith(magic):
            return mime
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "image/webp"
    return mimetypes.guess_type(path.name)[0] or "application/octet-stream"


def _is_url(ref: str) -> bool:
    return "://" in ref[:64] or ref[:5].lower() == "data:"


def _describe(asset: Asset, path: Path, mime_type: str | None = None, sha256: str | None = None) -> None:
    sniffed = sniff_mime(path)
    fill_asset(
        asset,
        local_path=str(path),
        size_bytes=path.stat().st_size,
        mime_type=mime_type or (sniffed if sniffed != "application/octet-stream" else asset.mime_type or sniffed),
        sha256=sha256 or file_sha256(path),
    )
