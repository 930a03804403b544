"""Accepts a run: body, files, envelope, id. When a step fails, everything made by earlier steps is released."""

import asyncio
import errno
import hashlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec

from gen_worker.authoring.signature import FunctionSpec
from gen_worker.contract.runner import RunOptions
from gen_worker.dev.envelope import read_envelope
from gen_worker.dev.runs import MAX_QUEUED, DevRun, RunBook
from gen_worker.dev.uploads import read_multipart
from gen_worker.errors import ValidationError
from gen_worker.execution.request import RunRequest
from gen_worker.http.asgi import Request, RequestError
from gen_worker.http.headers import media_type
from gen_worker.http.idempotency import idempotency_key
from gen_worker.scratch import Owned, new_owned
from gen_worker.sources.listings import read_listings
from gen_worker.texts import counted

MAX_BODY_BYTES = 256 << 20
_INLINE_BYTES = 64 << 10  # limit for a body that is decoded at once, because a thread would cost more
_DISK_IS_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Accepted(msgspec.Struct, gc=False):
    """A run that is to be started; if `request` is None, a run that its idempotency key has started before.

    `release` gives back what was taken for the run. The code that executes the run calls it once, when the author's
    code has ended.
    """

    run: DevRun
    options: RunOptions
    request: RunRequest | None = None
    release: ExitStack | None = None

    @property
    def headers(self) -> dict[str, str]:
        """Tells a caller that an earlier request with the same key has begun the run."""
        return {"idempotent-replayed": "true"} if self.request is None else {}

    @property
    def cancels(self) -> bool:
        """Whether the run is cancelled when its caller leaves. False when the caller came for an earlier run."""
        return self.request is not None and self.options.cancel_on_disconnect


async def accept_run(spec: FunctionSpec, request: Request, book: RunBook, run_dir: Path) -> Accepted:
    """Read a request into a run of `spec`. If it raises, it leaves no file, no id, and no position in the queue."""
    key = idempotency_key(request)
    if book.queued >= MAX_QUEUED:  # before the body is read, because refusing should be cheap
        raise RequestError(429, "overloaded", f"{counted(book.queued, 'run')} in the queue; try again later")
    if not media_type(request.header(b"content-type")).startswith("multipart/"):
        return await _accept(spec, book, key, await request.body(MAX_BODY_BYTES), {})
    with ExitStack() as undo:
        try:
            with _disk_full_is_an_answer():
                owned = _upload_folder(run_dir)
                undo.callback(owned.remove)
                body, uploads = await read_multipart(request, spec.payload_type, owned.folder, MAX_BODY_BYTES)
        except (LookupError, UnicodeError) as exc:  # an unknown charset, or one that does not fit; or texts that JSON cannot represent
            detail = f"the multipart body's texts cannot be decoded: {ascii(str(exc))[1:-1]}; send them as UTF-8"
            raise RequestError(400, "invalid_multipart", detail, error="invalid_multipart") from None
        accepted = await _accept(spec, book, key, body, uploads)
        if accepted.request is not None:
            accepted.release = undo.pop_all()
        return accepted


def _upload_folder(run_dir: Path) -> Owned:
    run_dir.mkdir(parents=True, exist_ok=True)
    return new_owned(run_dir, "upload-")


async def _accept(spec: FunctionSpec, book: RunBook, key: str, body: bytes, uploads: dict[str, Path]) -> Accepted:
    payload, options = read_envelope(body) if len(body) <= _INLINE_BYTES else await asyncio.to_thread(read_envelope, body)
    try:
        listings = read_listings(options.resolved_models) if options.resolved_models else {}
    except (ValidationError, ValueError) as exc:
        raise RequestError(400, "validation", str(exc), error="invalid_resolved_cozy_models_by_id") from None
    fingerprint = b""
    if key:
        fingerprint = await asyncio.to_thread(_fingerprint, spec.name, body, uploads)
        before = book.find_key(key)
        if before is not None:
            if before.fingerprint != fingerprint:
                raise RequestError(422, "idempotency_key_reused", f"Idempotency-Key {key!r} was used before for another request")
            return Accepted(before, options)
    # The id comes last: no later step can fail, and no other request runs between this and the check of the key above.
    run = book.create(spec.name, options.run_id)
    if run is None:
        raise RequestError(409, "conflict", f"a run with the id {options.run_id!r} is in progress", error="duplicate_run_id")
    run.streamed = spec.output_mode == "incremental"
    if key:
        book.keep_key(run, key, fingerprint)
    return Accepted(
        run,
        options,
        RunRequest(
            run_id=run.run_id,
            payload=payload,
            timeout_ms=options.timeout_ms,
            owner=options.owner,
            invoker_id=options.invoker_id,
            required_models=options.required_models,
            resolved_models=options.resolved_models,
            listings=listings,
            uploads=uploads,
        ),
    )


def _fingerprint(function: str, body: bytes, uploads: dict[str, Path]) -> bytes:
    digest = hashlib.blake2b(f"{function}\0{len(body)}\0".encode(), digest_size=16)
    digest.update(body)
    for path in uploads.values():
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.digest()


@contextmanager
def _disk_full_is_an_answer() -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        if exc.errno in _DISK_IS_FULL:
            raise RequestError(507, "disk_full", "there is no room on the runner's disk for the files of this request") from None
        raise
