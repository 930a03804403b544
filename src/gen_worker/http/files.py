"""Sends files: ranges, conditions, and problems when there is none to send."""

import asyncio
import stat
from collections.abc import Mapping
from pathlib import Path

from starlette.responses import FileResponse

from gen_worker.http.asgi import Request, RequestError
from gen_worker.http.headers import http_date, matches_etag, matches_etag_strongly
from gen_worker.http.ranges import Span, requested_spans


class _Response(FileResponse):
    chunk_size = 256 << 10  # each chunk costs a change of threads


async def send_file(request: Request, path: Path, headers: Mapping[str, str]) -> None:
    """Answer with the file at `path`, with the `etag` and `last-modified` of `headers` if they have these. `RequestError`
    404 when it is gone, 412 when it does not meet the request's conditions, 416 for a range outside the file.
    """
    try:
        found = await asyncio.to_thread(path.stat)
    except OSError:
        found = None
    if found is None or not stat.S_ISREG(found.st_mode):
        raise RequestError(404, "not_found", f"no file {path.name[:200]!r}", error="unknown_file")
    response = _Response(path, headers=headers, stat_result=found)
    etag, modified = response.headers["etag"], response.headers["last-modified"]
    scope = request.scope
    if is_known(request, path.name, etag, http_date(modified)):
        kept = {name: value for name, value in headers.items() if name in ("vary", "cache-control")}
        await request.answer(304, b"", headers={**kept, "etag": etag, "last-modified": modified})
        return
    spans = wanted_spans(request, found.st_size, etag, modified)
    # Starlette gets only ranges that it understands as we do.
    fields = [(name, value) for name, value in scope["headers"] if name not in (b"range", b"if-range")]
    if spans:
        fields.append((b"range", b"bytes=" + b",".join(b"%d-%d" % (start, end - 1) for start, end in spans)))
    await response({**scope, "headers": fields}, request.receive, request.send)


def is_known(request: Request, name: str, etag: str, modified_s: float | None) -> bool:
    """Whether the client already has this version of the file (304). `RequestError` 412 when the file is not the one it
    asks for. For reading only: `check_conditions` is for what changes the file. `modified_s`: None when that is not known.
    """
    if request.scope["method"] not in ("GET", "HEAD"):
        return False
    if request.has_header(b"if-match"):
        is_meant = matches_etag_strongly(request.header(b"if-match"), etag)
    else:
        until_s = http_date(request.header(b"if-unmodified-since"))
        is_meant = until_s is None or modified_s is None or modified_s <= until_s
    if not is_meant:
        raise RequestError(412, "precondition_failed", f"{name[:200]!r} has changed: it is {etag} now")
    if request.has_header(b"if-none-match"):
        return matches_etag(request.header(b"if-none-match"), etag)
    since_s = http_date(request.header(b"if-modified-since"))
    return since_s is not None and modified_s is not None and modified_s <= since_s


def is_conditional(request: Request) -> bool:
    """Whether a request that changes a file has conditions."""
    return any(request.has_header(name) for name in (b"if-match", b"if-none-match", b"if-unmodified-since"))


def check_conditions(request: Request, name: str, etag: str | None, modified_s: float | None = None) -> None:
    """`RequestError` 412 when a file is not in the state in which this request is to change it (RFC 9110, 13.2.2).
    `etag`: of the file as reading it gives it now; None when there is none. Call it under the lock that guards the change,
    or two writers who have read the same version both succeed, and what one of them wrote is lost.
    """
    if request.has_header(b"if-match"):
        is_meant = etag is not None and matches_etag_strongly(request.header(b"if-match"), etag)
    else:
        until_s = http_date(request.header(b"if-unmodified-since"))
        is_meant = until_s is None or modified_s is None or int(modified_s) <= until_s
    if not is_meant:
        now = f"has changed: it is {etag} now" if etag is not None else "does not exist"
        raise RequestError(412, "precondition_failed", f"{name[:200]!r} {now}; nothing was changed")
    if etag is not None and request.has_header(b"if-none-match") and matches_etag(request.header(b"if-none-match"), etag):
        raise RequestError(412, "precondition_failed", f"{name[:200]!r} exists: it is {etag}; nothing was changed")


def wanted_spans(request: Request, size_bytes: int, etag: str, modified: str = "") -> tuple[Span, ...]:
    """The parts of the file to send; empty for all of it. `RequestError` 416 when all are outside. Ranges apply to GET
    only, and with `If-Range` only while the file is still the same (RFC 9110, 13.1.5 and 14.2).
    """
    header = request.header(b"range")
    if not header or request.scope["method"] != "GET":
        return ()
    if request.has_header(b"if-range") and request.header(b"if-range").strip() not in {etag, modified} - {""}:
        return ()
    spans = requested_spans(header, size_bytes)
    if spans == ():
        detail = f"the file has {size_bytes} bytes; the range {header[:60]!r} is outside"
        raise RequestError(416, "range_not_satisfiable", detail, headers={"content-range": f"bytes */{size_bytes}"})
    return spans or ()
