"""Streams bodies of gigabytes in and out in constant memory, and maps storage failures to HTTP errors."""

import asyncio
import errno
from collections.abc import Callable, Iterator, Mapping
from email.utils import formatdate

from gen_orchestrator.hub.blobs import Blobs, DamagedError, KeptFile, checked
from gen_worker.http.asgi import BodyReader, Request, RequestError
from gen_worker.http.files import check_conditions, is_known, send_file, wanted_spans

GATHERED_BYTES = 1 << 20


async def take_body(request: Request, max_bytes: int, write: Callable[[bytes], None]) -> None:
    """Pass a body to `write` in pieces of about a MiB, in a thread; the next piece arrives while one is written.
    `RequestError` 413, 408; 400 for a part of a file, which would be taken for all of it (RFC 9110, 14.5).
    """
    if request.has_header(b"content-range"):
        raise RequestError(400, "validation", "a Content-Range header: expected the whole file, because parts cannot be uploaded")
    reader = BodyReader(request, max_bytes)
    writing: asyncio.Future[None] | None = None
    try:
        while not reader.ended:
            gathered: list[bytes] = []
            size_bytes = 0
            while size_bytes < GATHERED_BYTES and not reader.ended:
                chunk = await reader.next_chunk()
                gathered.append(chunk)
                size_bytes += len(chunk)
            if writing is not None:
                await writing
                writing = None
            if size_bytes:
                writing = asyncio.ensure_future(asyncio.to_thread(write, b"".join(gathered)))
    finally:
        if writing is not None:  # also after an incomplete body, because the caller closes the file next
            await asyncio.shield(writing)


def etag_of(kept: KeptFile) -> str:
    """The strong ETag of a file: the name of its blob, because a blob never changes."""
    return f'"{kept.blob.rpartition("/")[2]}"'


def check_may_change(request: Request, ref: str, kept: KeptFile | None) -> None:
    """`RequestError` 412 when the request is not meant for this version of the file (None: there is no file)."""
    check_conditions(request, ref, etag_of(kept) if kept is not None else None, kept.created_at if kept is not None else None)


async def send_blob(request: Request, blobs: Blobs, kept: KeptFile, headers: Mapping[str, str]) -> None:
    """Answer with a file, by its record. `headers` include its content-type. `RequestError` 416 for a range outside the
    file, 410 when its bytes are gone, 500 when they are not the stored ones, 503 when the blob store does not answer.

    A local file is checked by its size. A file that is stored elsewhere and read completely is checked by its digest;
    if that is wrong, the last piece is not sent.
    """
    headers = {**headers, "etag": etag_of(kept), "last-modified": formatdate(int(kept.created_at), usegmt=True)}
    try:
        path = blobs.path(kept.blob)
        if path is not None:
            found = await asyncio.to_thread(blobs.head, kept.blob)
            if found is None:
                raise FileNotFoundError
            if found.size_bytes != kept.size_bytes:
                raise DamagedError(f"it has {found.size_bytes} bytes; expected {kept.size_bytes}")
            await send_file(request, path, headers)
            return
        await _send_pieces(request, blobs, kept, headers)
    except OSError as exc:
        raise not_read(exc, kept, blobs) from None


async def _send_pieces(request: Request, blobs: Blobs, kept: KeptFile, headers: Mapping[str, str]) -> None:
    size_bytes = kept.size_bytes
    etag, modified = headers["etag"], headers["last-modified"]
    if is_known(request, kept.ref, etag, int(kept.created_at)):
        await request.answer(304, b"", headers={"etag": etag, "last-modified": modified})
        return
    spans = wanted_spans(request, size_bytes, etag, modified)
    found = spans[0] if len(spans) == 1 else None  # several may be answered with the whole file (RFC 9110, 14.2)
    start, end = found or (0, size_bytes)
    fields = {**headers, "accept-ranges": "bytes", "content-length": str(end - start)}
    if found is not None:
        fields["content-range"] = f"bytes {start}-{end - 1}/{size_bytes}"
    pieces: Iterator[bytes] = iter(())
    first = b""
    if request.scope["method"] != "HEAD" and end > start:
        pieces = blobs.read(kept.blob, start, end)
        if end - start == size_bytes:
            pieces = checked(pieces, kept)
        first = await asyncio.to_thread(next, pieces, b"")
    raw = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in fields.items()]
    await request.send({"type": "http.response.start", "status": 200 if found is None else 206, "headers": raw})
    gone = asyncio.ensure_future(request.left())
    piece = first
    try:
        while piece and not gone.done():
            coming = asyncio.ensure_future(asyncio.to_thread(next, pieces, b""))
            try:
                await request.write(piece)
            finally:
                await asyncio.wait([coming])  # also when this is cancelled, because work in a thread cannot be stopped
            piece = coming.result()
    except OSError:
        return  # the answer has begun: the connection is closed early, so the reader sees that bytes are missing
    finally:
        gone.cancel()
    await request.write(b"", last=True)


def not_kept(exc: OSError, what: str) -> RequestError:
    """The error when files cannot be written: 507 without room, 503 when the data folder is gone or not writable."""
    if exc.errno in (errno.ENOSPC, errno.EDQUOT):
        hint = "the disk of the platform's data folder is full; `cozyctl doctor` on that machine lists what takes room"
        return RequestError(507, "storage", f"{what}: {exc.strerror}: {hint}", headers={"retry-after": "5"})
    detail = f"{what}: {exc.strerror or exc}; does the platform's data folder still exist, and is it writable?"
    return RequestError(503, "storage", detail, headers={"retry-after": "5"})


def not_read(exc: OSError, kept: KeptFile | None, blobs: Blobs) -> RequestError:
    """The error when an existing file cannot be read. `kept`: None when its record is what cannot be read."""
    ref = repr(kept.ref[:200]) if kept is not None else "the file"
    if isinstance(exc, FileNotFoundError):
        detail = f"{ref} was stored, but its bytes are gone from {blobs.name} (as {kept.blob if kept is not None else ''}); save it again"
        return RequestError(410, "gone", detail, error="lost_file")
    if isinstance(exc, DamagedError):
        return RequestError(500, "damaged", f"{ref} is damaged in {blobs.name}: {exc.strerror}; save it again", error="damaged_file")
    return RequestError(503, "storage", f"{ref} cannot be read now: {exc.strerror or exc}", headers={"retry-after": "5"})
