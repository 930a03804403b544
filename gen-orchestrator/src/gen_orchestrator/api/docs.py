"""The page at `/docs`: try the functions of all tags, and watch runs."""

from pathlib import Path

from gen_worker.http.asgi import Request, RequestError

CONSOLE = Path(__file__).parent / "console"
_TYPES = {"index.html": b"text/html; charset=utf-8", "page.css": b"text/css; charset=utf-8", "page.js": b"text/javascript; charset=utf-8"}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; form-action 'none'; base-uri 'none'"
)
_HEADERS = {"content-security-policy": _POLICY, "x-content-type-options": "nosniff", "cache-control": "no-cache"}


class DocsRoutes:
    """Handlers of `/docs` and its files, which are read once."""

    def __init__(self) -> None:
        self._files = {name: (CONSOLE / name).read_bytes() for name in _TYPES}

    async def page(self, request: Request) -> None:
        await request.answer(200, self._files["index.html"], _TYPES["index.html"], _HEADERS)

    async def file(self, request: Request) -> None:
        name = request.parts["name"]
        if name not in _TYPES:
            raise RequestError(404, "not_found", f"there is nothing at /docs/{name[:100]}")
        await request.answer(200, self._files[name], _TYPES[name], _HEADERS)
