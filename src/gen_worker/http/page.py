"""The page that a program serves at `/docs`: its own body, style and script, after the head and style that all such pages share.

A folder holds `body.html`, `page.css` and `page.js`. The page loads nothing from anywhere else, and nobody may frame it.
"""

from pathlib import Path
from string import Template

from gen_worker.http.asgi import Request, RequestError

_SHARED = Path(__file__).parent / "page_shared"
_INDEX = "index.html"
_TYPES = {_INDEX: b"text/html; charset=utf-8", "page.css": b"text/css; charset=utf-8", "page.js": b"text/javascript; charset=utf-8"}
_POLICY = "default-src 'self'; img-src 'self' data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
_HEADERS = {"content-security-policy": _POLICY, "x-content-type-options": "nosniff", "cache-control": "no-cache"}


class Page:
    """Answers `/docs` and `/docs/{name}`. Its files are read once."""

    def __init__(self, folder: Path, title: str) -> None:
        head = Template((_SHARED / "head.html").read_text()).substitute(title=title)
        self._files = {
            _INDEX: head.encode() + (folder / "body.html").read_bytes(),
            "page.css": (_SHARED / "page.css").read_bytes() + (folder / "page.css").read_bytes(),
            "page.js": (folder / "page.js").read_bytes(),
        }

    async def answer(self, request: Request) -> None:
        name = request.parts.get("name", _INDEX)
        if name not in self._files:
            raise RequestError(404, "not_found", f"there is no page {name[:100]!r}")
        await request.answer(200, self._files[name], _TYPES[name], _HEADERS)
