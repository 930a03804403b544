"""Sends files: ranges, conditions, and problems when there is none to send."""

import asyncio
import stat
from collections.abc import Mapping
from pathlib import Path

from starlette.responses import FileResponse

from gen_worker.http.asgi import Request, RequestError
from gen_worker.http.headers import http_date, matches_etag


class _Response(FileResponse):
    """Starlette's response. Its two refusals are plain text, so check `is_satisfiable` first."""

    chunk_size = 256 << 10  # each chunk costs a change of threads

    def is_satisfiable(self, header: str, size_bytes: int) -> bool | None:
        """Whether this Range header can be answered; None when it is invalid and must be ignored (RFC 9110, 14.2)."""
        unit, equals, ranges = header.partition("=")
        if not equals or unit.strip().lower() != "bytes":
            return None
        found = self._parse_ranges(ranges, size_bytes)
        if not found or any(start >= end for start, end in found if start < size_bytes):
            return None
        return all(start < size_bytes for start, _ in found)


async def send_file(request: Request, path: Path, headers: Mapping[str, str]) -> None:
    """Answer with the file at `path`. `RequestError` 404 when it is gone, 412 when it does not meet the request's
    conditions, 416 for a range outside the file. Conditions apply to reading only, and ranges to GET only (RFC 9110,
    13.2.1 and 14.2).
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
    if scope["method"] in ("GET", "HEAD") and _is_known(request, path.name, etag, int(found.st_mtime)):
        kept = {name: value for name, value in headers.items() if name in ("vary", "cache-control")}
        await request.answer(304, b"", headers={**kept, "etag": etag, "last-modified": modified})
        return
    wanted = request.header(b"range") if scope["method"] == "GET" else ""
    if request.header(b"if-range").strip() not in ("", etag, modified):
        wanted = ""  # the file has changed since: send all of it
    answers = response.is_satisfiable(wanted, found.st_size)
    if answers is False:
        detail = f"the file has {found.st_size} bytes; the range {wanted[:60]!r} is outside"
        raise RequestError(416, "range_not_satisfiable", detail, headers={"content-range": f"bytes */{found.st_size}"})
    if not answers:
        scope = {**scope, "headers": [(name, value) for name, value in scope["headers"] if name != b"range"]}
    await response(scope, request.receive, request.send)


def _is_known(request: Request, name: str, etag: str, modified_s: int) -> bool:
    """Whether the client already has this version of the file; `RequestError` 412 when the file is not the one it asks
    for (RFC 9110, 13.2.2).
    """
    if request.has_header(b"if-match"):
        is_meant = matches_etag(request.header(b"if-match"), etag)
    else:
        until_s = http_date(request.header(b"if-unmodified-since"))
        is_meant = until_s is None or modified_s <= until_s
    if not is_meant:
        raise RequestError(412, "precondition_failed", f"{name[:200]!r} has changed: it is {etag} now")
    if request.has_header(b"if-none-match"):
        return matches_etag(request.header(b"if-none-match"), etag)
    since_s = http_date(request.header(b"if-modified-since"))
    return since_s is not None and modified_s <= since_s
