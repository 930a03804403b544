"""A run leaves nothing for the garbage collector, whose collections would stop all threads."""

import asyncio
import gc
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.runner_project import CODE

from gen_worker.dev.app import DevApp
from gen_worker.dev.server import ServeOptions, dev_config, find_functions
from gen_worker.http.connection import Connection
from gen_worker.http.crowd import ConnectionLimits, Crowd
from gen_worker.log import Log

RUNS = 50
SOCKETS = """
@worker_websocket()
async def mirror(ctx: ActionContext, sock: RealtimeSocket) -> None:
    async for data in sock.iter_bytes():
        await sock.send_bytes(data)
"""
OPENING = (
    b"GET /v1/realtime/mirror HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAECAwQFBgcICQoLDA0ODw==\r\n\r\n"
)


async def ask(app: DevApp, path: str, body: bytes, accept: bytes) -> list[dict[str, Any]]:
    pieces = [{"type": "http.request", "body": body, "more_body": False}]
    sent: list[dict[str, Any]] = []
    never = asyncio.Event()

    async def receive() -> dict[str, Any]:
        if not pieces:
            await never.wait()
        return pieces.pop()

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    headers = [(b"host", b"localhost"), (b"accept", accept)]
    scope = {"type": "http", "method": "POST", "path": path, "query_string": b"", "http_version": "1.1", "headers": headers}
    await app.asgi(scope, receive, send)
    return sent


@pytest.mark.parametrize(
    ("function", "accept"), [("echo", b"*/*"), ("aecho", b"*/*"), ("words", b"text/event-stream"), ("awords", b"application/x-ndjson")]
)
def test_runs_leave_no_cycles(project: Callable[..., Path], tmp_path: Path, function: str, accept: bytes) -> None:
    async def main() -> Counter[str]:
        options = ServeOptions(root=project(CODE), outputs=tmp_path / "out")
        app = DevApp(dev_config(options, os.environ, tmp_path / "run", find_functions(options, os.environ)), Log())
        try:
            for _ in range(300):  # as many as are kept, so that each new one lets an old one go
                await ask(app, f"/v1/run/{function}", b'{"prompt":"a b","n":2}', accept)
            gc.collect()
            gc.disable()
            gc.set_debug(gc.DEBUG_SAVEALL)
            for _ in range(RUNS):
                sent = await ask(app, f"/v1/run/{function}", b'{"prompt":"a b","n":2}', accept)
                assert sent[0]["status"] == 200
            gc.collect()
            return Counter(type(each).__qualname__ for each in gc.garbage)
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()
            await app.close()

    found = asyncio.run(main())
    assert not [(kind, count) for kind, count in found.items() if count >= RUNS], found


async def test_sessions_leave_no_cycles(project: Callable[..., Path], tmp_path: Path) -> None:
    options = ServeOptions(root=project(SOCKETS), outputs=tmp_path / "out")
    app = DevApp(dev_config(options, os.environ, tmp_path / "run", find_functions(options, os.environ)), Log())
    crowd, state = Crowd(ConnectionLimits()), SimpleNamespace(connections=set(), tasks=set())
    server = await asyncio.get_running_loop().create_server(lambda: Connection(app.asgi, crowd, state), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]

    async def talk() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(OPENING + b"\x82\x85\0\0\0\0hello")
        await reader.readuntil(b"\x82\x05hello")
        writer.write(b"\x88\x80\0\0\0\0")
        await reader.read()
        writer.close()
        await writer.wait_closed()

    try:
        for _ in range(300):
            await talk()
        gc.collect()
        gc.disable()
        gc.set_debug(gc.DEBUG_SAVEALL)
        for _ in range(RUNS):
            await talk()
        gc.collect()
        found = Counter(type(each).__qualname__ for each in gc.garbage if type(each).__module__.startswith("gen_worker"))
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
        server.close()
        await app.close()
    assert not [(kind, count) for kind, count in found.items() if count >= RUNS], found
