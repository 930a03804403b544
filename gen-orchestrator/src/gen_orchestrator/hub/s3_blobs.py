"""Blobs in a bucket of S3, or of a server that speaks its protocol, by `obstore`.

Credentials, region and endpoint come from the usual variables: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION, AWS_ENDPOINT_URL.
"""

from __future__ import annotations

import errno
import itertools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import obstore
from obstore.exceptions import BaseError, NotFoundError
from obstore.store import S3Store

from gen_orchestrator.hub.blobs import PIECE_BYTES, BlobError, BlobInfo, BlobWriter, DamagedError

if TYPE_CHECKING:
    from obstore import WritableFile

PART_BYTES = 8 << 20  # for an upload in parts; four are in memory
PARTS_AT_ONCE = 4
DELETED_AT_ONCE = 1000  # the maximum number of keys in one request to S3


class _S3Writer:
    """An upload in parts, or in one request if it is small; nobody sees it before it is complete."""

    def __init__(self, blobs: S3Blobs, file: WritableFile) -> None:
        self._blobs = blobs
        self._file = file
        self._is_over = False

    def write(self, data: bytes) -> None:
        with self._blobs.named():
            self._file.write(data)

    def close(self) -> None:
        self._is_over = True  # even after a failure, because the library then keeps nothing
        with self._blobs.named():
            self._file.close()

    def abort(self) -> None:
        if self._is_over:
            return
        self._is_over = True
        why = BlobError("the upload was aborted")
        with self._blobs.named():
            self._file.__exit__(type(why), why, None)  # this, and not `close`, removes the parts already sent


class S3Blobs:
    """Blobs in one bucket, below a prefix."""

    def __init__(self, store: S3Store, name: str) -> None:
        self._store = store
        self.name = name

    @classmethod
    def from_env(cls, name: str, env: Mapping[str, str]) -> S3Blobs:
        """For `s3://bucket/prefix`. An endpoint given with `http:` is used without TLS."""
        bucket, _, prefix = name.removeprefix("s3://").partition("/")
        # Named explicitly: otherwise the library would look in the machine's metadata.
        keys: dict[str, Any] = {
            "access_key_id": env.get("AWS_ACCESS_KEY_ID"),
            "secret_access_key": env.get("AWS_SECRET_ACCESS_KEY"),
            "session_token": env.get("AWS_SESSION_TOKEN"),
        }
        endpoint = env.get("AWS_ENDPOINT_URL_S3") or env.get("AWS_ENDPOINT_URL") or ""
        return cls(
            S3Store(
                bucket,
                prefix=prefix.strip("/") or None,
                region=env.get("AWS_REGION") or env.get("AWS_DEFAULT_REGION") or "us-east-1",
                endpoint=endpoint or None,
                **{name: value for name, value in keys.items() if value},
                client_options={"allow_http": endpoint.startswith("http://"), "connect_timeout": "5s", "timeout": "120s"},
                retry_config={"max_retries": 3, "backoff": {"max_backoff": timedelta(seconds=1)}},  # callers are told to try again
            ),
            name,
        )

    def writer(self, key: str) -> BlobWriter:
        with self.named():
            return _S3Writer(self, obstore.open_writer(self._store, key, buffer_size=PART_BYTES, max_concurrency=PARTS_AT_ONCE))

    def head(self, key: str) -> BlobInfo | None:
        try:
            with self.named():
                found = self._store.head(key)
        except FileNotFoundError:
            return None
        return BlobInfo(key, found["size"], found["last_modified"].timestamp())

    def read(self, key: str, start: int, end: int) -> Iterator[bytes]:
        with self.named():
            found = self._store.get(key, options={"range": (start, end)}) if start < end else None
        if found is None:
            return
        if found.meta["size"] < end:
            raise DamagedError(f"{self.name}/{key} has {found.meta['size']} bytes; expected at least {end}")
        with self.named():
            for piece in found.stream(min_chunk_size=PIECE_BYTES):
                yield bytes(piece)

    def path(self, key: str) -> Path | None:
        return None

    def delete(self, key: str) -> None:
        try:
            with self.named():
                self._store.delete(key)
        except FileNotFoundError:
            return

    def delete_below(self, prefix: str) -> None:
        keys = (found.key for found in self.list(prefix))
        while some := list(itertools.islice(keys, DELETED_AT_ONCE)):
            with self.named():
                self._store.delete(some)

    def forget_halves(self, prefix: str, before_s: float) -> None:
        """Unfinished multipart uploads are not visible here; a bucket rule for incomplete uploads deletes them."""

    def list(self, prefix: str) -> Iterator[BlobInfo]:
        with self.named():
            for page in self._store.list(f"{prefix}/"):
                for found in page:
                    yield BlobInfo(found["path"], found["size"], found["last_modified"].timestamp())

    @contextmanager
    def named(self) -> Iterator[None]:
        """The library's errors as `OSError`s that name this bucket."""
        try:
            yield
        except (NotFoundError, FileNotFoundError) as exc:
            raise FileNotFoundError(str(exc)) from None
        except (BaseError, OSError) as exc:
            why = str(exc).partition("\n")[0][:300]
            raise BlobError(errno.EIO, f"{self.name} failed: {why}") from None
