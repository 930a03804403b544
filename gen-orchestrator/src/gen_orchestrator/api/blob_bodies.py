"""Bodies of gigabytes, in and out, in constant memory."""

import asyncio
from collections.abc import Callable, Mapping

from gen_orchestrator.hub.blobs import Blobs
from gen_worker.http.asgi import BodyReader, Request, RequestError
from gen_worker.http.files import send_file
from gen_worker.http.headers import matches_etag

GATHERED_BYTES = 1 << 20


async def take_body(request: Request, max_bytes: int, write: Callable[[bytes], None]) -> None:
    """Hand a body to `write` in pieces of about a MiB, in a thread; while one is written, the next comes. `RequestError` 413, 408."""
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
        if writing is not None:  # also where the body broke off: who called closes the file next
            await asyncio.shield(writing)


async def send_blob(request: Request, blobs: Blobs, key: str, size_bytes: int, headers: Mapping[str, str]) -> None:
    """Answer with a blob; `RequestError` 404 when it is gone, 416 for a range that it has not. `headers` name its content-type."""
    path = blobs.path(key)
    if path is not None:
        await send_file(request, path, headers)
        return
    etag = f'"{key.rpartition("/")[2]}"'  # a blob never changes
    if matches_etag(request.header(b"if-none-match"), etag):
        await request.answer(304, b"", headers={"etag": etag})
        return
    wanted = request.header(b"range")
    if request.header(b"if-range") not in ("", etag):
        wanted = ""
    start, end = 0, size_bytes
    found = _one_range(wanted, size_bytes) if wanted and request.scope["method"] == "GET" else None
    if found is not None:
        start, end = found
        if start >= size_bytes:
            detail = f"the file has {size_bytes} bytes; the range {wanted[:60]!r} lies beyond them"
            raise RequestError(416, "range_not_satisfiable", detail, headers={"content-range": f"bytes */{size_bytes}"})
    fields = {**headers, "etag": etag, "accept-ranges": "bytes", "content-length": str(end - start)}
    if found is not None:
        fields["content-range"] = f"bytes {start}-{end - 1}/{size_bytes}"
    pieces = blobs.read(key, start, end)
    try:
        first = await asyncio.to_thread(next, pieces, b"") if request.scope["method"] != "HEAD" and end > start else b""
    except FileNotFoundError:
        raise RequestError(404, "not_found", "the file is gone", error="unknown_file") from None
    raw = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in fields.items()]
    await request.send({"type": "http.response.start", "status": 200 if found is None else 206, "headers": raw})
    piece = first
    while piece:
        await request.write(piece)
        piece = await asyncio.to_thread(next, pieces, b"")
    await request.write(b"", last=True)


def _one_range(header: str, size_bytes: int) -> tuple[int, int] | None:
    """From where to before where; None for what is no range, or several, which may be answered with the whole (RFC 9110, 14.2)."""
    unit, equals, text = header.partition("=")
    first, dash, last = (part.strip() for part in text.partition("-"))
    numbers = all(part.isascii() and part.isdigit() and len(part) < 20 for part in (first, last) if part)
    if not equals or unit.strip().lower() != "bytes" or not dash or not numbers or not (first or last):
        return None
    if not first:
        return max(0, size_bytes - int(last)) if int(last) else size_bytes, size_bytes
    if last and int(last) < int(first):
        return None
    return int(first), min(size_bytes, int(last) + 1) if last else size_bytes
