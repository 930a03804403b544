"""Requests to a hub, with its answers as file lists. Newer routes are tried first; older hubs, which do not know them,
are asked by the older ones. Blocking.
"""

import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar
from urllib.parse import quote

import msgspec

from gen_worker.content.listing import Listing, RemoteFile
from gen_worker.contract.hub import (
    ArtifactPreferences,
    ArtifactRequest,
    HubFile,
    ModelAnswer,
    ModelConstraints,
    ModelRequest,
    ResolvedTag,
    SnapshotManifest,
)
from gen_worker.errors import CozyHubError, CozyHubNoCompatibleArtifactError, CozyHubPublicModelPendingError, RetryableError
from gen_worker.net.json_client import Answer, JsonClient
from gen_worker.net.retry import PASSING, HttpError, PassingError, Retries
from gen_worker.net.wanted import DownloadCanceledError
from gen_worker.refs import CozyRef, ModelSpec, parse_model_ref

T = TypeVar("T")
PENDING_TIMEOUT_S = 15 * 60.0
FIRST_POLL_S = 0.5
MAX_POLL_S = 10.0
PUBLIC_ROUTE = "/api/v1/public/models/request"
UNKNOWN_ROUTE = (404, 405, 501)  # how a hub older than the route answers


class HubRoutes:
    """One hub. `may_resolve`: the routes meant for development may be used, too; pinned digests need them."""

    def __init__(self, client: JsonClient, *, may_resolve: bool, retries: Retries | None = None) -> None:
        self._client = client
        self._retries = retries or Retries()
        self._may_resolve = may_resolve

    def resolve(self, spec: ModelSpec, cancel: threading.Event) -> Listing | None:
        """The hub's file list of a model; None when no route may be used for it. `CozyHubError` when the hub refuses,
        `RetryableError` when another try may help.
        """
        ref = parse_model_ref(spec.ref)
        name = ref.canonical()
        if not isinstance(ref, CozyRef):
            return self._request_public(name, spec, cancel)
        if ref.digest is None:
            try:
                return self._request_public(name, spec, cancel)
            except CozyHubError:
                if not self._may_resolve:
                    raise
        if not self._may_resolve:
            return None
        return self._snapshot(ref, ref.digest, name, cancel) if ref.digest is not None else self._resolve_artifact(ref, spec, name, cancel)

    def _ask(self, request: Callable[[], Answer], name: str, cancel: threading.Event) -> Answer:
        """The hub's answer, after as many tries as the policy allows; `RetryableError` when all of them failed."""

        def attempt() -> Answer:
            answer = request()
            if answer.status in PASSING:
                raise HttpError(answer.status, self._client.host, answer.asked_s, _said(answer))
            return answer

        try:
            return self._retries.call(attempt, cancel.wait)
        except HttpError as exc:
            raise RetryableError(f"no file list of {name}: the hub at {exc}") from exc
        except PassingError as exc:
            raise RetryableError(f"no file list of {name}: {exc}") from exc

    def _request_public(self, name: str, spec: ModelSpec, cancel: threading.Event) -> Listing:
        body = ModelRequest(name, ModelConstraints(tuple(spec.dtypes)))
        deadline_s, pause_s = time.monotonic() + PENDING_TIMEOUT_S, FIRST_POLL_S
        while True:
            answer = self._ask(lambda: self._client.post(PUBLIC_ROUTE, body), name, cancel)
            if answer.status != 202:
                return _artifact(_checked(answer, name, ModelAnswer), name)
            if time.monotonic() > deadline_s:
                raise CozyHubPublicModelPendingError(str(_field(answer.body, "ingest_job_id") or ""))
            if cancel.wait(pause_s * random.uniform(0.9, 1.1)):  # noqa: S311
                raise DownloadCanceledError("cancelled while the hub was fetching")
            pause_s = min(MAX_POLL_S, pause_s * 1.5)

    def _resolve_artifact(self, ref: CozyRef, spec: ModelSpec, name: str, cancel: threading.Event) -> Listing:
        answer = self._ask(
            lambda: self._client.post(f"{_repo(ref)}/resolve_artifact", ArtifactRequest(ref.tag, ArtifactPreferences(tuple(spec.dtypes)))),
            name,
            cancel,
        )
        if answer.status not in UNKNOWN_ROUTE:
            return _artifact(_checked(answer, name, ModelAnswer), name)
        older = self._ask(lambda: self._client.get(f"{_repo(ref)}/resolve?tag={quote(ref.tag, safe='')}"), name, cancel)
        if older.status in UNKNOWN_ROUTE:  # then it is the model that the hub does not know
            return _artifact(_checked(answer, name, ModelAnswer), name)
        resolved = _checked(older, name, ResolvedTag)
        digest = resolved.digest or resolved.snapshot_digest
        if not digest:
            raise CozyHubError(f"the hub's answer for {name} names no digest")
        return self._snapshot(ref, digest, name, cancel)

    def _snapshot(self, ref: CozyRef, digest: str, name: str, cancel: threading.Event) -> Listing:
        """A version of a repository. Older hubs list objects: folders with their own manifests."""
        path = f"{_repo(ref)}/snapshots/{quote(digest, safe=':')}/manifest"
        manifest = _checked(self._ask(lambda: self._client.get(path), name, cancel), name, SnapshotManifest)
        objects = manifest.objects or {}
        own = manifest.files or manifest.root_files
        files = list(_files(own, name)) if own or not objects else []
        for folder, object_digest in sorted(objects.items()):
            path = f"/api/v1/objects/{quote(object_digest, safe=':')}/manifest"
            inside = _checked(self._ask(partial(self._client.get, path), name, cancel), name, SnapshotManifest)
            files += [RemoteFile(f"{folder}/{file.path}", *_rest(file)) for file in _files(inside.files, name)]
        return Listing(digest, tuple(files))


def _repo(ref: CozyRef) -> str:
    return f"/api/v1/repos/{quote(ref.owner, safe='')}/{quote(ref.repo, safe='')}"


def _checked(answer: Answer, name: str, kind: type[T]) -> T:
    """The hub's answer in the expected type; otherwise a `CozyHubError` or `RetryableError` with the reason."""
    if answer.status == 200 and isinstance(answer.body, dict):
        try:
            return msgspec.convert(answer.body, kind)
        except msgspec.ValidationError as exc:
            raise CozyHubError(f"the hub's answer for {name} cannot be used: {exc}") from None
    said = _said(answer)
    if answer.status == 409:
        raise CozyHubNoCompatibleArtifactError(_field(answer.body, "debug") or said, f"the hub has no compatible form of {name}: {said}")
    if answer.status >= 500:  # permanent ones, such as 501 or 505; another hub or a newer one may do better
        raise RetryableError(f"the hub answered HTTP {answer.status} for {name}: {said}")
    hint = "; set COZY_HUB_TOKEN" if answer.status in (401, 403) else ""
    raise CozyHubError(f"the hub refused {name} (HTTP {answer.status}): {said}{hint}", answer.status, said)


def _said(answer: Answer) -> str:
    """The hub's reason: of a problem (RFC 9457) its detail, which is for people; of others the message."""
    return next((str(text)[:400] for key in ("detail", "message", "error") if (text := _field(answer.body, key))), "")


def _artifact(answer: ModelAnswer, name: str) -> Listing:
    manifest = answer.snapshot_manifest or SnapshotManifest()
    return Listing(answer.snapshot_digest or "", tuple(_files(manifest.files, name)))


def _files(files: Sequence[HubFile] | None, name: str) -> Iterator[RemoteFile]:
    """A hub's files in our format; `CozyHubError` when one is incomplete."""
    if not files:
        raise CozyHubError(f"the hub's answer for {name} lists no files")
    for file in files:
        if file.bytes is None or file.blob is None or not file.url:
            raise CozyHubError(f"the hub's answer for {name} has a file without size_bytes, blake3 and url: {file.path!r}")
        yield RemoteFile(file.path, file.bytes, file.blob, file.url)


def _rest(file: RemoteFile) -> tuple[int, str, str]:
    return file.size_bytes, file.digest, file.url


def _field(value: Any, key: str) -> Any:
    return value.get(key) if isinstance(value, dict) else None
