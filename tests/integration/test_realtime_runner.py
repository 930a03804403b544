"""`GET /v1/realtime/{function}` of the dev runner: its own limits and answers. What is the same on the platform: gen-orchestrator/tests/integration/test_realtime.py."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import websockets
from tests.conftest import Runner, write_project
from tests.realtime_project import CODE, COZY
from tests.waiting import eventually
from websockets.asyncio.client import ClientConnection

Start = Callable[..., Runner]


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    folder = tmp_path_factory.mktemp("realtime")
    (folder / "model").mkdir()
    (folder / "model" / "weights.txt").write_text("of the model")
    found = Runner(write_project(folder / "project", CODE, COZY), folder / "outputs", "--model", f"a={folder / 'model'}")
    yield found
    assert found.stop() == 0
    assert "Traceback" not in found.log.read_text()


@asynccontextmanager
async def connected(runner: Runner, path: str, **options: Any) -> AsyncIterator[ClientConnection]:
    url = f"{runner.url.replace('http', 'ws', 1)}/v1/realtime/{path}"
    async with websockets.connect(url, proxy=None, max_size=None, **options) as client:
        yield client


async def end_of(client: ClientConnection) -> tuple[int, str]:
    """The close code and reason, once all else is read."""
    try:
        while True:
            await asyncio.wait_for(client.recv(), 60)
    except websockets.ConnectionClosed as closed:
        assert closed.rcvd is not None
        return closed.rcvd.code, closed.rcvd.reason


def get(runner: Runner, path: str) -> Any:
    return runner.http.get(path).json()


async def test_a_failed_session_is_shown_with_the_authors_line(runner: Runner) -> None:
    async with connected(runner, "mirror?run_id=failing") as client:
        await client.send("fail")
        await end_of(client)
    run = get(runner, "/v1/runs/failing")
    assert (run["status"], run["error"]["detail"]) == ("failed", "as asked")
    assert 'raise ValueError("as asked")' in run["error"]["hint"]


async def test_several_sessions_up_to_the_functions_limit(runner: Runner) -> None:
    async with connected(runner, "pair") as first:
        async with connected(runner, "pair") as second:
            for n, client in enumerate((first, second)):
                await client.send(str(n))
                assert await client.recv() == str(n).encode()
            async with connected(runner, "pair") as third:
                assert await end_of(third) == (1013, "function_concurrency_reached")
            async with connected(runner, "mirror") as other:
                await other.send("others")
                assert await other.recv() == b"others"
        await eventually(lambda: get(runner, "/v1/status")["runs"]["active"] == 1)
        async with connected(runner, "pair") as third:
            await third.send("a place again")
            assert await third.recv() == b"a place again"


async def test_the_limits_of_a_worker_hold(project: Callable[..., Path], start_runner: Start) -> None:
    runner = start_runner(project(CODE, COZY), env={"WORKER_MAX_CONCURRENCY": "1", "WORKER_MAX_WS_FRAME_BYTES": "100"})
    async with connected(runner, "mirror") as client:
        await client.send(b"x" * 100)
        assert await client.recv() == b"x" * 100
        async with connected(runner, "mirror") as other:
            assert await end_of(other) == (1013, "max_concurrency_reached")
        queued = runner.http.post("/v1/run/echo", json={}, headers={"prefer": "respond-async"}).headers["location"]
        assert get(runner, queued)["status"] == "queued"
        await client.send(b"x" * 101)
        assert await end_of(client) == (1009, "frame_too_large")
    assert get(runner, f"{queued}?wait=20")["status"] == "succeeded"


async def test_a_stop_closes_sessions(project: Callable[..., Path], start_runner: Start) -> None:
    runner = start_runner(project(CODE, COZY))
    async with connected(runner, "mirror") as open_one, connected(runner, "stubborn") as stubborn:
        await open_one.send("x")
        await open_one.recv()
        stopping = asyncio.create_task(asyncio.to_thread(runner.stop))
        assert await end_of(open_one) == (1001, "worker_draining")
        assert await end_of(stubborn) == (1001, "worker_draining")
        assert await stopping == 0


async def test_websockets_are_listed(runner: Runner) -> None:
    listed = get(runner, "/openapi.json")["x-websockets"]
    assert {each["name"] for each in listed} == {"mirror", "once", "patient", "gated", "flood", "pair", "reads-model", "stubborn"}
    (mirror,) = [each for each in listed if each["name"] == "mirror"]
    assert mirror["path"] == "/v1/realtime/mirror"
    assert mirror["description"].startswith("Give each frame back.")
    assert get(runner, "/v1/status")["websockets"] == sorted(each["name"] for each in listed)
    assert "mirror" not in get(runner, "/v1/status")["functions"]
