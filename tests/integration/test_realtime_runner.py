"""`GET /v1/realtime/{function}` of the dev runner, with the client library that everybody uses."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
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
            await asyncio.wait_for(client.recv(), 30)
    except websockets.ConnectionClosed as closed:
        assert closed.rcvd is not None
        return closed.rcvd.code, closed.rcvd.reason


def get(runner: Runner, path: str) -> Any:
    return runner.http.get(path).json()


def peak_bytes(runner: Runner) -> int:
    """The most memory that the runner's process has ever had."""
    return int(re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{runner.process.pid}/status").read_text())[1]) << 10


async def test_frames_of_every_kind_in_order(runner: Runner) -> None:
    async with connected(runner, "mirror?run_id=kinds&owner=me") as client:
        for sent in (b"\x00\xff", b"", b"x" * 125, b"x" * 126, b"x" * 65_536, b"x" * 5_000_000):
            await client.send(sent)
            assert await client.recv() == sent
        await client.send("text: ü€")
        assert await client.recv() == "text: ü€".encode()
        await client.send([b"in ", b"", b"pieces"])
        assert await client.recv() == b"in pieces"
        await client.send("json")
        assert await client.recv() == '{"a":"kinds","b":1,"owner":"me"}'
        await asyncio.wait_for(await client.ping(b"are you there"), 20)

        async def send() -> None:
            for n in range(5000):
                await client.send(str(n).encode())

        sending = asyncio.create_task(send())
        assert [int(await client.recv()) for _ in range(5000)] == list(range(5000))
        await sending
    await eventually(lambda: get(runner, "/v1/runs/kinds")["status"] == "succeeded")


@pytest.mark.parametrize(
    ("path", "sent", "code", "reason"),
    [
        ("mirror", "close", 1000, "closed"),
        ("once", "x", 1000, "completed"),
        ("mirror", "fail", 1011, "error:ValueError"),
        ("patient?timeout_ms=20", "", 1011, "error:DeadlineError"),
        ("mirror", b"x" * ((16 << 20) + 1), 1009, "frame_too_large"),
        ("mirror", [b"x" * (10 << 20)] * 2, 1009, "frame_too_large"),
    ],
    ids=["closed", "completed", "failed", "out of time", "too large", "too large in pieces"],
)
async def test_how_sessions_end(runner: Runner, path: str, sent: Any, code: int, reason: str) -> None:
    async with connected(runner, path) as client:
        with suppress(websockets.ConnectionClosed):  # the runner may end it before all is sent
            await client.send(sent)
        assert await end_of(client) == (code, reason)


async def test_a_failed_session_is_shown_with_the_authors_line(runner: Runner) -> None:
    async with connected(runner, "mirror?run_id=failing") as client:
        await client.send("fail")
        await end_of(client)
    run = get(runner, "/v1/runs/failing")
    assert (run["status"], run["error"]["detail"]) == ("failed", "as asked")
    assert 'raise ValueError("as asked")' in run["error"]["hint"]


@pytest.mark.parametrize("how", ["closes", "vanishes"])
async def test_a_client_that_leaves_cancels_the_context(runner: Runner, how: str) -> None:
    async with connected(runner, f"patient?run_id={how}") as client:
        await eventually(lambda: get(runner, f"/v1/runs/{how}").get("progress"))
        assert get(runner, "/v1/status")["runs"]["active"] == 1
        if how == "vanishes":
            client.transport.abort()
    await eventually(lambda: get(runner, f"/v1/runs/{how}")["status"] == "succeeded")
    events = runner.http.get(f"/v1/runs/{how}/events").text
    assert '"canceled":true' in events
    assert get(runner, "/v1/status")["runs"]["active"] == 0


async def test_a_session_is_cancelled_as_a_run_is(runner: Runner) -> None:
    async with connected(runner, "stubborn?run_id=stubborn") as client:
        await eventually(lambda: get(runner, "/v1/runs/stubborn")["status"] == "running")
        assert runner.http.post("/v1/runs/stubborn/cancel").json()["status"] == "canceled"
        assert await end_of(client) == (1011, "error:CanceledError")
    assert runner.run("echo").status_code == 200


async def test_models_are_injected(runner: Runner) -> None:
    async with connected(runner, "reads-model") as client:
        await client.send("weights.txt")
        assert await client.recv() == b"of the model"


async def test_a_flood_waits_with_the_client_while_the_handler_is_slow(project: Callable[..., Path], start_runner: Start) -> None:
    runner = start_runner(project(CODE, COZY))
    before = peak_bytes(runner)
    async with connected(runner, "gated") as large, connected(runner, "gated") as small:
        sent_bytes = 0

        async def send() -> None:
            nonlocal sent_bytes
            for _ in range(300):
                await large.send(bytes(1 << 20))
                sent_bytes += 1 << 20
            await large.send("sum")

        async def send_small() -> None:
            for _ in range(20_000):
                await small.send(b"")
            await small.send("sum")

        sending = [asyncio.create_task(send()), asyncio.create_task(send_small())]
        await eventually(lambda: sent_bytes >= 18 << 20)  # more than is taken
        assert runner.run("echo").json()["success"], "others are not held up"
        assert runner.run("open-gate").json()["success"]
        assert json.loads(await large.recv()) == [300, 300 << 20]
        assert json.loads(await small.recv()) == [20_000, 0]
        await asyncio.gather(*sending)
    assert peak_bytes(runner) - before < 120 << 20, "of 300 MiB"


async def test_a_handler_that_floods_waits_for_its_reader(project: Callable[..., Path], start_runner: Start) -> None:
    runner = start_runner(project(CODE, COZY))
    before = peak_bytes(runner)
    async with connected(runner, "flood", max_queue=1) as client:
        await client.send("3000 100000")
        assert runner.run("echo").json()["success"]
        for n in range(3000):
            frame = await client.recv()
            assert isinstance(frame, bytes)
            assert int.from_bytes(frame[:4], "big") == n
    assert peak_bytes(runner) - before < 60 << 20, "of 300 MB"


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
