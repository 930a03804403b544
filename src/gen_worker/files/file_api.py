"""Client of the file API of a hub or orchestrator: saves, inspects and fetches files. Blocking: call it from a thread.

A token belongs to one run and its owner, so each run has its own `FileApi`.
"""

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

import httpcore
import msgspec

from gen_worker.contract.files import FILE_ROUTE, OWNER_HEADER, SHA256_HEADER, SIZE_HEADER, TYPE_HEADER, SavedFile
from gen_worker.errors import AuthError, FatalError, RetryableError, StorageError, ValidationError
from gen_worker.names import whole_number
from gen_worker.net.retry import PASSING, HttpError, PassingError, Retries, RetryPolicy, asked_s
from gen_worker.net.writing_out import WritingOut
from gen_worker.shared_files import open_own
from gen_worker.texts import counted

T = TypeVar("T")
CHUNK_BYTES = 1 << 20
CONNECT_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 30.0  # between two pieces; a large file may take longer in all
TRIES = 3  # few, because a run and its caller wait
TRIES_WHILE_AWAY = 7  # about 20 s: a platform that restarts costs no run that has computed for minutes
RETRIES = RetryPolicy(tries=TRIES_WHILE_AWAY, first_pause_s=0.5, max_asked_s=30.0)
AWAY = frozenset({503})
FULL = 507
MAX_ANSWER_BYTES = 64 << 10
MAX_SAID_CHARS = 400

Body = Callable[[], Iterator[bytes]]


class FileApiError(RuntimeError):
    """The file API refused. `status` is its HTTP status."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class FileTooLargeError(ValueError):
    """The file holds more bytes than allowed."""


class FileApi:
    """Requests to one base URL with one token."""

    def __init__(self, base_url: str, token: str, owner: str, retries: Retries | None = None) -> None:
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"file API base URL {base_url[:200]!r}: expected http://host or https://host")
        self._host = parts.hostname
        self._base = base_url.rstrip("/")
        self._token = token
        self._owner = owner
        self._retries = retries or Retries(RETRIES)

    def save(self, ref: str, body: Body, size_bytes: int, *, create: bool) -> SavedFile:
        """Send a file of `size_bytes`, in pieces. `RuntimeError` when `create` finds an existing one."""
        headers = [("content-type", "application/octet-stream"), ("content-length", str(size_bytes))]

        def attempt() -> SavedFile:
            with self._request("POST" if create else "PUT", ref, headers, body()) as (status, fields, response):
                if create and status == 409:
                    raise FileApiError(f"output path {ref[:200]!r} already exists (HTTP 409)", status)
                self._check(status, fields, response, f"saving {ref[:200]!r}")
                return _saved(_read(response, MAX_ANSWER_BYTES))

        return self._with_retries(attempt, f"saving {ref[:200]!r}")

    def stat(self, ref: str) -> SavedFile:
        """Facts about a file; `ValidationError` when it does not exist."""

        def attempt() -> SavedFile:
            with self._request("HEAD", ref) as (status, fields, response):
                self._check(status, fields, response, f"input {ref[:200]!r}", is_input=True)
                size = fields.get(SIZE_HEADER) or fields.get("content-length") or ""
                sha256 = fields.get(SHA256_HEADER, "").lower()
                return SavedFile(
                    ref,
                    whole_number(size),
                    sha256 if len(sha256) == 64 and all(char in "0123456789abcdef" for char in sha256) else None,
                    fields.get(TYPE_HEADER) or None,
                )

        return self._with_retries(attempt, f"input {ref[:200]!r}")

    def fetch(self, ref: str, path: Path, max_bytes: int) -> int:
        """Write a file's bytes to `path`; returns their number. `FileTooLargeError` above `max_bytes` (0: no limit)."""

        def attempt() -> int:
            with self._request("GET", ref) as (status, fields, response):
                self._check(status, fields, response, f"input {ref[:200]!r}", is_input=True)
                size_bytes = 0
                with os.fdopen(open_own(path, os.O_WRONLY | os.O_TRUNC), "wb") as file:
                    out = WritingOut(file)
                    for chunk in response.iter_stream():
                        size_bytes += len(chunk)
                        if max_bytes and size_bytes > max_bytes:
                            raise FileTooLargeError(f"input {ref[:200]!r} has more than the {max_bytes} bytes that are allowed")
                        out.write(chunk)
                declared = whole_number(fields.get("content-length", ""))
                if declared is not None and declared != size_bytes:
                    raise PassingError(f"ended after {size_bytes} of {declared} bytes")
                return size_bytes

        return self._with_retries(attempt, f"input {ref[:200]!r}")

    def _with_retries(self, attempt: Callable[[], T], what: str) -> T:
        tries = 0

        def one_try() -> T:
            nonlocal tries
            tries += 1
            try:
                return attempt()
            except httpcore.ConnectError as exc:
                raise PassingError(str(exc) or type(exc).__name__) from exc
            except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError) as exc:
                failed: PassingError | HttpError = PassingError(str(exc) or type(exc).__name__)
                failed.__cause__ = exc
            except (PassingError, HttpError) as exc:
                if isinstance(exc, HttpError) and exc.status in AWAY:
                    raise
                failed = exc
            if tries >= TRIES:
                raise _given_up(what, tries, failed) from failed
            raise failed

        try:
            return self._retries.call(one_try, threading.Event().wait)
        except (PassingError, HttpError) as exc:
            raise _given_up(what, tries, exc) from exc

    def _request(
        self, method: str, ref: str, headers: list[tuple[str, str]] | None = None, content: Iterator[bytes] | None = None
    ) -> "_Exchange":
        fields = [("authorization", f"Bearer {self._token}"), ("user-agent", "gen-worker"), ("accept-encoding", "identity")]
        if self._owner:
            fields.append((OWNER_HEADER, self._owner))
        return _Exchange(method, f"{self._base}{FILE_ROUTE}{quoted_ref(ref)}", fields + (headers or []), content)

    def _check(self, status: int, fields: Mapping[str, str], response: httpcore.Response, what: str, *, is_input: bool = False) -> None:
        if 200 <= status < 300:
            return
        if status in (401, 403):
            raise AuthError(f"{what} was refused with HTTP {status}: the run's file_token is not accepted")
        if is_input and status in (404, 410, 413):
            raise ValidationError(f"{what}: the file API has no such file for this run (HTTP {status})")
        said = _detail(response)
        if status == FULL:
            raise _NoRoomError(said, asked_s(status, fields, self._retries.clock))
        if status in PASSING:
            raise HttpError(status, self._host, asked_s(status, fields, self._retries.clock), said)
        told = f" with HTTP {status}" + (f": {said}" if said else "")
        if status == 413:  # a limit, not a fault of this worker
            raise FatalError(f"{what} was refused{told}")
        raise FileApiError(f"{what} failed{told}", status)


class _NoRoomError(PassingError):
    """The file API has no room left."""

    def __init__(self, said: str, asked_s: float | None) -> None:
        super().__init__(f"there is no room left for it (HTTP {FULL})" + (f": {said}" if said else ""))
        self.asked_s = asked_s


def _given_up(what: str, tries: int, exc: Exception) -> RetryableError:
    return (StorageError if isinstance(exc, _NoRoomError) else RetryableError)(f"{what} failed in {counted(tries, 'try', 'tries')}: {exc}")


class _Exchange:
    """One request on its own connection, as a context manager: status, lower-case headers, response."""

    def __init__(self, method: str, url: str, headers: list[tuple[str, str]], content: Iterator[bytes] | None) -> None:
        timeouts = {"connect": CONNECT_TIMEOUT_S, "read": READ_TIMEOUT_S, "write": READ_TIMEOUT_S, "pool": CONNECT_TIMEOUT_S}
        self._pool = httpcore.ConnectionPool(max_keepalive_connections=0)
        self._stream: Any = self._pool.stream(method, url, headers=headers, content=content, extensions={"timeout": timeouts})

    def __enter__(self) -> tuple[int, dict[str, str], httpcore.Response]:
        try:
            response: httpcore.Response = self._stream.__enter__()
        except BaseException:
            self._pool.close()
            raise
        fields = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers}
        return response.status, fields, response

    def __exit__(self, *raised: Any) -> None:
        try:
            self._stream.__exit__(*raised)
        finally:
            self._pool.close()


def quoted_ref(ref: str) -> str:
    """A logical path, encoded for a URL: empty parts dropped, every part fully encoded; `ValueError` for `..`."""
    parts = [part for part in ref.split("/") if part]
    if not parts or ".." in parts or "." in parts:
        raise ValueError(f"file ref {ref[:200]!r}: expected a path without '.' and '..' parts")
    return "/".join(quote(part, safe="") for part in parts)


def _read(response: httpcore.Response, max_bytes: int) -> bytes:
    data = b""
    for chunk in response.iter_stream():
        data += chunk
        if len(data) > max_bytes:
            return b""
    return data


class _Refusal(msgspec.Struct):
    detail: str = ""


def _detail(response: httpcore.Response) -> str:
    """What a refusal says for people (RFC 9457); empty if it says nothing that can be read."""
    try:
        return msgspec.json.decode(_read(response, MAX_ANSWER_BYTES), type=_Refusal).detail[:MAX_SAID_CHARS]
    except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError, ValueError, RecursionError):
        return ""


def _saved(body: bytes) -> SavedFile:
    """Facts from the server's answer. A missing or unreadable answer is tolerated: the file is saved anyway."""
    try:
        return msgspec.json.decode(body, type=SavedFile)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return SavedFile()
