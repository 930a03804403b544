"""Send a file: ranges, conditions, and problems where there is none to send."""

import asyncio
import stat
from collections.abc import Mapping
from pathlib import Path

from starlette.responses import FileResponse

from gen_worker.http.asgi import Request, RequestError
from gen_worker.http.headers import matches_etag


class _Response(FileResponse):
    """Starlette's, whose two refusals are plain text: ask `is_satisfiable` first."""

    def is_satisfiable(self, header: str, size_bytes: int) -> bool | None:
        """Whether this Range header can be answered; None when it is no range, and to be ignored (RFC 9110, 14.2)."""
        unit, equals, ranges = header.partition("=")
        if not equals or unit.strip().lower() != "bytes":
            return None
        found = self._parse_ranges(ranges, size_bytes)
        if not found or any(start >= end for start, end in found if start < size_bytes):
            return None
        return all(start < size_bytes for start, _ in found)


async def send_file(request: Request, path: Path, headers: Mapping[str, str]) -> None:
    """Answer with the file at `path`; `RequestError` 404 when it is gone, 416 for a range that it has not."""
    try:
        found = await asyncio.to_thread(path.stat)
    except OSError:
        found = None
    if found is None or not stat.S_ISREG(found.st_mode):
        raise RequestError(404, "not_found", f"no file {path.name[:200]!r}", error="unknown_file")
    response = _Response(path, headers=headers, stat_result=found)
    etag = response.headers["etag"]
    if matches_etag(request.header(b"if-none-match"), etag):
        await request.answer(304, b"", headers={"etag": etag})
        return
    scope = request.scope
    wanted = request.header(b"range")
    answers = response.is_satisfiable(wanted, found.st_size)
    if answers is False and scope["method"] == "GET" and not request.header(b"if-range"):
        detail = f"the file has {found.st_size} bytes; the range {wanted[:60]!r} lies beyond them"
        raise RequestError(416, "range_not_satisfiable", detail, headers={"content-range": f"bytes */{found.st_size}"})
    if not answers:
        scope = {**scope, "headers": [(name, value) for name, value in scope["headers"] if name != b"range"]}
    await response(scope, request.receive, request.send)
