"""Answers MCP requests with runs.

    tools/list        functions, with their docstrings and schemas      resources/list   runs, newest first
    tools/call        a run; its progress as notifications              resources/read   a run object

Each message gets a server object of its own, so there are no sessions: any node can answer, and a restart loses
nothing.
"""

import asyncio
import logging
import re
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

import msgspec
from mcp import types
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel.server import Server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.shared.exceptions import MCPError
from starlette.types import Message

from gen_worker import __version__
from gen_worker.front_doors.catalog import Catalog, Target
from gen_worker.front_doors.file_fields import payload_of, whole, with_texts_for_files
from gen_worker.front_doors.files import link
from gen_worker.front_doors.inside import in_path
from gen_worker.front_doors.runs import ProblemError, Run, Runs
from gen_worker.http.asgi import DisconnectedError, Request

RUN = "run:///"
INVALID_PARAMS = -32602
NOT_FOUND = -32002
MAX_TOOL_NAME = 128
_UNSAFE = re.compile(r"[^A-Za-z0-9_-]")
Context = ServerRequestContext[Any, Any]
logging.getLogger("mcp").setLevel(logging.WARNING)  # the SDK logs the begin and end of each message, besides our lines about runs


async def answer(request: Request, body: bytes, catalog: Catalog, runs: Runs) -> None:
    """Answer one message of a client; `body` is its JSON."""
    gone = asyncio.Event()
    left = asyncio.ensure_future(request.left())
    left.add_done_callback(lambda _: gone.set())
    told = False

    async def leaving() -> Message:
        await gone.wait()
        return {"type": "http.disconnect"}

    async def receive() -> Message:
        nonlocal told
        if told:
            return await leaving()
        told = True
        return {"type": "http.request", "body": body, "more_body": False}

    # The message's runs need to know, too, when the client disconnects, and only one reader may wait for that at the connection itself.
    answers = _Answers(Request(request.scope, leaving, request.send), catalog, runs)
    manager = StreamableHTTPSessionManager(answers.server(), stateless=True, max_request_body_size=len(body) + 1)
    try:
        async with manager.run():
            await manager.handle_request(request.scope, receive, request.send)
    finally:
        left.cancel()


class _Answers:
    """The handlers of one message."""

    def __init__(self, request: Request, catalog: Catalog, runs: Runs) -> None:
        self._request = request
        self._catalog = catalog
        self._runs = runs

    def server(self) -> Server[Any]:
        return Server(
            "gen-worker",
            version=__version__,
            on_list_tools=self._list_tools,
            on_call_tool=self._call_tool,
            on_list_resources=self._list_resources,
            on_list_resource_templates=self._list_templates,
            on_read_resource=self._read_resource,
        )

    async def _list_tools(self, ctx: Context, params: types.PaginatedRequestParams | None) -> types.ListToolsResult:
        return types.ListToolsResult(tools=[_tool(name, target) for name, target in self._tools().items()])

    async def _call_tool(self, ctx: Context, params: types.CallToolRequestParams) -> types.CallToolResult:
        target = self._tools().get(params.name)
        if target is None:
            raise MCPError(INVALID_PARAMS, f"no tool {params.name[:200]!r}")
        payload = payload_of(params.arguments or {}, target.entry.input_schema)
        try:
            async with self._runs.start(self._request, target, payload) as run:
                return await self._follow(ctx, run)
        except ProblemError as exc:
            places = "".join(f"\n{error.pointer or '/'}: {error.message}" for error in exc.problem.errors)
            text = f"{exc.problem.code}: {exc.problem.detail}{places}"
            return types.CallToolResult(content=[types.TextContent(type="text", text=text)], is_error=True)
        except DisconnectedError:
            raise MCPError(INVALID_PARAMS, "the client has gone") from None

    async def _follow(self, ctx: Context, run: Run) -> types.CallToolResult:
        outputs: list[Any] = []
        async for event in run.events():
            if event.event == "progress":
                said = msgspec.json.decode(event.data)
                await ctx.session.report_progress(float(said.get("progress") or 0), 1.0, said.get("stage"))
            elif event.event == "output":
                outputs.append(msgspec.json.decode(event.data))
            elif event.event == "restart":
                outputs.clear()
        done = run.done
        assert done is not None
        content: list[Any] = [types.TextContent(type="text", text=_text_of(outputs) if outputs else _text(done.output))]
        for file in done.files or ():
            name = PurePosixPath(file.ref).name
            content.append(
                types.ResourceLink(
                    type="resource_link", name=name, uri=link(self._request, file), mime_type=file.mime_type, size=file.size_bytes
                )
            )
        return types.CallToolResult(content=content, structured_content=done.output if isinstance(done.output, dict) else None)

    async def _list_resources(self, ctx: Context, params: types.PaginatedRequestParams | None) -> types.ListResourcesResult:
        cursor = f"?cursor={in_path(params.cursor)}" if params is not None and params.cursor else ""
        page = await self._get(f"/v1/runs{cursor}")
        found = [
            types.Resource(
                uri=f"{RUN}{run['id']}", name=run["id"], title=f"{run['function']}: {run['status']}", mime_type="application/json"
            )
            for run in page["data"]
        ]
        return types.ListResourcesResult(resources=found, next_cursor=page["next_cursor"])

    async def _list_templates(self, ctx: Context, params: types.PaginatedRequestParams | None) -> types.ListResourceTemplatesResult:
        template = types.ResourceTemplate(uri_template=f"{RUN}{{run_id}}", name="run", title="A run", mime_type="application/json")
        return types.ListResourceTemplatesResult(resource_templates=[template])

    async def _read_resource(self, ctx: Context, params: types.ReadResourceRequestParams) -> types.ReadResourceResult:
        uri = str(params.uri)
        if not uri.startswith(RUN):
            raise MCPError(NOT_FOUND, f"no resource {uri[:200]!r}; expected {RUN}<run id>")
        run = await self._get(f"/v1/runs/{in_path(uri.removeprefix(RUN))}")
        text = msgspec.json.format(msgspec.json.encode(run)).decode()
        return types.ReadResourceResult(contents=[types.TextResourceContents(uri=uri, mime_type="application/json", text=text)])

    async def _get(self, path: str) -> Any:
        status, _, body = await self._runs.inside.get(self._request, path)
        found = msgspec.json.decode(body)
        if status != 200:
            raise MCPError(NOT_FOUND if status == 404 else INVALID_PARAMS, found.get("detail", "it cannot be read"))
        return found

    def _tools(self) -> dict[str, Target]:
        """Functions by tool name: those with the tag `prod` if the program has tags."""
        return {_tool_name(target): target for target in self._catalog.all(self._request) if ":" not in target.name}


def _tool(name: str, target: Target) -> types.Tool:
    entry = target.entry
    output = None if entry.incremental_output else {"type": "object", **whole(entry.output_schema)}
    schema = {"type": "object", **with_texts_for_files(entry.input_schema)}
    return types.Tool(name=name, title=target.name, description=entry.description or None, input_schema=schema, output_schema=output)


def _tool_name(target: Target) -> str:
    """`owner/endpoint/function` as `owner__endpoint__function`, because clients of models allow no other characters."""
    return "__".join(_UNSAFE.sub("_", part) for part in target.name.split("/"))[-MAX_TOOL_NAME:]


def _text(output: Any) -> str:
    return msgspec.json.encode(output).decode()


def _text_of(outputs: Sequence[Any]) -> str:
    """A stream as one text: the pieces joined if each has one, otherwise a list."""
    pieces = [_piece(each) for each in outputs]
    return "".join(piece for piece in pieces if piece is not None) if all(piece is not None for piece in pieces) else _text(outputs)


def _piece(output: Any) -> str | None:
    if not isinstance(output, dict):
        return None
    found = next(iter(output.values())) if len(output) == 1 else output.get("content", output.get("text"))
    return found if isinstance(found, str) else None
