"""A run leaves nothing for the garbage collector to find: what it finds, it stops everything for."""

import asyncio
import gc
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.runner_project import CODE

from gen_worker.dev.app import DevApp
from gen_worker.dev.server import ServeOptions, dev_config, find_functions
from gen_worker.log import Log

RUNS = 50


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
        app = DevApp(dev_config(options, os.environ, tmp_path / "run", find_functions(options)), Log())
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
