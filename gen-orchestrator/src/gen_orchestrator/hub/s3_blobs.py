"""Blobs in a bucket of S3, or of a server that speaks its protocol, by `obstore`.

Credentials, region and endpoint come from the usual variables: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION, AWS_ENDPOINT_URL.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from obstore.exceptions import BaseError, NotFoundError
from obstore.store import S3Store

from gen_orchestrator.hub.blobs import BlobError, BlobInfo

PART_BYTES = 8 << 20  # of an upload in parts; four are in memory
PARTS_AT_ONCE = 4


class S3Blobs:
    """In one bucket, below a prefix."""

    def __init__(self, store: S3Store, name: str) -> None:
        self._store = store
        self._name = name

    @classmethod
    def from_env(cls, name: str, env: Mapping[str, str] = os.environ) -> S3Blobs:
        """Of `s3://bucket/prefix`. An endpoint that is named by `http:` is taken at its word."""
        bucket, _, prefix = name.removeprefix("s3://").partition("/")
        # Named here: what is left out, the library looks for in the machine's metadata.
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
                retry_config={"max_retries": 3},
            ),
            name,
        )

    def put(self, key: str, file: Path) -> None:
        with self._named():
            self._store.put(key, file, chunk_size=PART_BYTES, max_concurrency=PARTS_AT_ONCE)
        file.unlink()

    def head(self, key: str) -> BlobInfo | None:
        try:
            with self._named():
                found = self._store.head(key)
        except FileNotFoundError:
            return None
        return BlobInfo(key, found["size"], found["last_modified"].timestamp())

    def read(self, key: str, start: int, end: int) -> Iterator[bytes]:
        with self._named():
            for piece in self._store.get(key, options={"range": (start, end)}).stream(min_chunk_size=1 << 20) if start < end else ():
                yield bytes(piece)

    def path(self, key: str) -> Path | None:
        return None

    def delete(self, key: str) -> None:
        try:
            with self._named():
                self._store.delete(key)
        except FileNotFoundError:
            return

    def list(self, prefix: str) -> Iterator[BlobInfo]:
        with self._named():
            for page in self._store.list(f"{prefix}/"):
                for found in page:
                    yield BlobInfo(found["path"], found["size"], found["last_modified"].timestamp())

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except (NotFoundError, FileNotFoundError) as exc:
            raise FileNotFoundError(str(exc)) from None
        except BaseError as exc:
            why = str(exc).partition("\n")[0][:300]
            raise BlobError(errno.EIO, f"{self._name} did not do it: {why}") from None
