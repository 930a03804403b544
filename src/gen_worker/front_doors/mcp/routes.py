"""The route of the Model Context Protocol. The official SDK implements the protocol; it is imported at the first request."""

import asyncio
import importlib
from typing import Any

from gen_worker.front_doors.catalog import Catalog
from gen_worker.front_doors.runs import Runs
from gen_worker.http.asgi import Request, RequestError
from gen_worker.http.headers import media_type

MAX_BODY_BYTES = 32 << 20
PATH = "/mcp"


class McpDoor:
    """Handler of `/mcp`."""

    def __init__(self, catalog: Catalog, runs: Runs) -> None:
        self._catalog = catalog
        self._runs = runs

    async def post(self, request: Request) -> None:
        """`POST /mcp`: one message of a client. No state is kept between messages."""
        server: Any = await self._server()
        if media_type(request.header(b"content-type")) != "application/json":
            raise RequestError(415, "unsupported_media_type", "expected a JSON-RPC message, as application/json")
        body = await request.body(MAX_BODY_BYTES)
        await server.answer(request, body, self._catalog, self._runs)

    async def _server(self) -> Any:
        try:
            return await asyncio.to_thread(importlib.import_module, "gen_worker.front_doors.mcp.server")
        except ImportError as exc:
            if (exc.name or "").partition(".")[0] not in ("mcp", "mcp_types"):
                raise
            hint = "install it with: pip install 'mcp>=2.3'; then start this server again"
            raise RequestError(404, "not_found", "this server has no MCP: the package 'mcp' is not installed", hint=hint) from None
