"""The console: the page that the dev runner and the platform serve at `/docs`. Its files are built from `console/` by
`make console`.

The page loads nothing from elsewhere, runs scripts and styles only from its own files, and must not be framed.
"""

import asyncio
import gzip
import hashlib
from pathlib import Path
from typing import Literal

import msgspec

from gen_worker.http.asgi import Request, RequestError
from gen_worker.http.headers import accepts_coding, matches_etag

_FOLDER = Path(__file__).parent / "console"
_INDEX = "index.html"
_TYPES = {
    ".html": b"text/html; charset=utf-8",
    ".css": b"text/css; charset=utf-8",
    ".js": b"text/javascript; charset=utf-8",
    ".txt": b"text/plain; charset=utf-8",
}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)
_HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",  # a newer release has files with the same names
    "vary": "accept-encoding",
}


class _File(msgspec.Struct):
    data: bytes
    media_type: bytes
    etag: str
    zipped: bytes = b""  # made on the first request


class Page:
    """Answers `/docs` and `/docs/{name}`. Its files are read once."""

    def __init__(self, server: Literal["dev", "platform"]) -> None:
        self._files: dict[str, _File] = {}
        for path in _FOLDER.iterdir():
            data = path.read_bytes()
            if path.name == _INDEX:
                data = data.replace(b'data-server="SERVER"', b'data-server="%b"' % server.encode())
            self._files[path.name] = _File(data, _TYPES[path.suffix], f'"{hashlib.sha256(data).hexdigest()[:24]}"')

    async def answer(self, request: Request) -> None:
        name = request.parts.get("name", _INDEX)
        file = self._files.get(name)
        if file is None:
            raise RequestError(404, "not_found", f"no page {name[:100]!r}", error="unknown_page")
        is_zipped = accepts_coding(request.header(b"accept-encoding"), "gzip")
        # Other bytes have another tag, also of the same file.
        headers = {**_HEADERS, "etag": f'{file.etag[:-1]}-gzip"' if is_zipped else file.etag}
        if matches_etag(request.header(b"if-none-match"), headers["etag"]):
            await request.answer(304, b"", headers=headers)
            return
        data = file.data
        if is_zipped:
            file.zipped = file.zipped or await asyncio.to_thread(gzip.compress, data, 6, mtime=0)
            data, headers["content-encoding"] = file.zipped, "gzip"
        await request.answer(200, data, file.media_type, headers)
