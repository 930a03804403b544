"""Realtime sessions of `cozyctl dev` and `cozyctl up`: the same frames give the same answers."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
import websockets
from realtime_served import Served, dev_served, end_of, up_served
from waiting import eventually

from gen_worker.wire.realtime import MAX_FRAME_BYTES


@pytest.fixture(scope="module", params=["dev", "up"])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "dev":
        with dev_served(folder) as found:
            yield found
        return
    with up_served(folder) as (found, platform):
        found.call("echo")  # its worker is there
        found.pids += platform.worker_pids().values()
        yield found


async def test_frames_of_every_kind_in_order(served: Served) -> None:
    async with served.connected("mirror?run_id=kinds") as client:
        for sent in (b"\x00\xff", b"", b"x" * 125, b"x" * 126, b"x" * 65_536, b"x" * MAX_FRAME_BYTES):
            await client.send(sent)
            assert await client.recv() == sent
        await client.send("text: ü€")
        assert await client.recv() == "text: ü€".encode()
        await client.send([b"in ", b"", b"pieces"])
        assert await client.recv() == b"in pieces"
        await client.send("json")
        answer = await client.recv()
        assert isinstance(answer, str), "send_json sends text"
        assert json.loads(answer)["a"] == "kinds"
        await asyncio.wait_for(await client.ping(b"are you there"), 60)

        async def send() -> None:
            for n in range(5000):
                await client.send(str(n).encode())

        sending = asyncio.create_task(send())
        assert [int(await client.recv()) for _ in range(5000)] == list(range(5000))
        await sending
    assert (await served.ended("kinds"))["status"] == "succeeded"


@pytest.mark.parametrize(
    ("path", "sent", "code", "reason"),
    [
        ("mirror", "close", 1000, "closed"),
        ("once", "x", 1000, "completed"),
        ("mirror", "fail", 1011, "error:ValueError"),
        ("patient?timeout_ms=20", "", 1011, "error:DeadlineError"),
        ("mirror", b"x" * (MAX_FRAME_BYTES + 1), 1009, "frame_too_large"),
        ("mirror", [b"x" * (10 << 20)] * 2, 1009, "frame_too_large"),
    ],
    ids=["closed", "completed", "failed", "out of time", "too large", "too large in pieces"],
)
async def test_how_sessions_end(served: Served, path: str, sent: Any, code: int, reason: str) -> None:
    async with served.connected(path) as client:
        with suppress(websockets.ConnectionClosed):  # it may be ended before all is sent
            await client.send(sent)
        assert await end_of(client) == (code, reason)


async def test_a_failed_session_is_a_failed_run(served: Served) -> None:
    async with served.connected("mirror?run_id=failing") as client:
        await client.send("fail")
        await end_of(client)
    run = await served.ended("failing")
    assert (run["status"], run["error"]["code"], run["error"]["detail"]) == ("failed", "validation", "as asked")


@pytest.mark.parametrize("how", ["closes", "vanishes"])
async def test_a_client_that_leaves_cancels_the_context(served: Served, how: str) -> None:
    async with served.connected(f"patient?run_id={how}") as client:
        await eventually(lambda: served.run(how).get("progress"), 60)
        if how == "vanishes":
            client.transport.abort()
    assert (await served.ended(how))["status"] == "succeeded"
    assert '"canceled":true' in served.http.get(f"/v1/runs/{how}/events").text


async def test_a_session_is_cancelled_as_a_run_is(served: Served) -> None:
    async with served.connected("stubborn?run_id=stubborn") as client:
        await eventually(lambda: served.run("stubborn")["status"] == "running", 60)
        assert served.http.post("/v1/runs/stubborn/cancel").json()["status"] == "canceled"
        assert await end_of(client) == (1011, "error:CanceledError")
    served.call("echo")


async def test_models_are_injected(served: Served) -> None:
    async with served.connected("reads-model") as client:
        await client.send("weights.txt")
        assert await client.recv() == b"of the model"


async def test_a_flood_waits_with_the_client_while_the_handler_is_slow(served: Served) -> None:
    before = served.peak_bytes()
    async with served.connected("gated") as large, served.connected("gated") as small:
        sent_bytes = 0

        async def send() -> None:
            nonlocal sent_bytes
            for _ in range(200):
                await large.send(bytes(1 << 20))
                sent_bytes += 1 << 20
            await large.send("sum")

        async def send_small() -> None:
            for _ in range(20_000):
                await small.send(b"")
            await small.send("sum")

        sending = [asyncio.create_task(send()), asyncio.create_task(send_small())]
        await eventually(lambda: sent_bytes >= 18 << 20)  # more than is taken
        await asyncio.to_thread(served.call, "echo")  # others are not held up
        await asyncio.to_thread(served.call, "open-gate")
        assert json.loads(await large.recv()) == [200, 200 << 20]
        assert json.loads(await small.recv()) == [20_000, 0]
        await asyncio.gather(*sending)
    assert served.peak_bytes() - before < 150 << 20, "of 200 MiB, in one process or two"


async def test_a_handler_that_floods_waits_for_its_reader(served: Served) -> None:
    before = served.peak_bytes()
    async with served.connected("flood", max_queue=1) as client, served.connected("mirror") as other:
        await client.send("2000 100000")
        await other.send("not held up")
        assert await other.recv() == b"not held up"
        await asyncio.to_thread(served.call, "echo")
        for n in range(2000):
            frame = await client.recv()
            assert isinstance(frame, bytes)
            assert int.from_bytes(frame[:4], "big") == n
    assert served.peak_bytes() - before < 80 << 20, "of 200 MB"


async def test_what_is_refused_before_it_opens(served: Served) -> None:
    where = served.where
    for path, headers, status, words in (
        (f"{where}/mirro", {}, 404, "Did you mean 'mirror'?"),
        (f"{where}/mirror", {}, 426, "connect to it with ws://"),
        (f"{where}/mirror?timeout=5", {}, 400, "Did you mean 'timeout_ms'?"),
        (f"{where}/mirror?run_id=a%20b", {}, 400, "run_id"),
        (f"{where}/mirror", {"origin": "http://elsewhere.example"}, 403, "elsewhere.example"),
    ):
        offer = {
            "connection": "upgrade",
            "upgrade": "websocket",
            "sec-websocket-version": "13",
            "sec-websocket-key": "AAAAAAAAAAAAAAAAAAAAAA==",
        }
        answer = served.http.get(path, headers=headers if status == 426 else {**offer, **headers})
        assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), answer.text
        assert words in answer.json()["detail"]
    async with served.connected("mirror?run_id=twice") as client:
        with pytest.raises(websockets.InvalidStatus) as refused:
            async with served.connected("mirror?run_id=twice"):
                pass
        assert refused.value.response.status_code == 409
        await client.send("x")
        assert await client.recv() == b"x"


async def test_the_subprotocol_of_pages(served: Served) -> None:
    async with served.connected("mirror", subprotocols=["cozy.realtime", "cozy.key.cz_0_0"]) as client:
        assert client.subprotocol == "cozy.realtime"
    async with served.connected("mirror", subprotocols=["another"]) as client:
        assert client.subprotocol is None


async def test_websockets_are_listed(served: Served) -> None:
    listed = served.get("/openapi.json")["x-websockets"]
    assert {each["name"] for each in listed if "dev" not in each["path"].split(":")} == {
        "mirror", "once", "patient", "gated", "flood", "pair", "reads-model", "stubborn"
    }  # fmt: skip
    (mirror,) = [each for each in listed if each["path"] == f"{served.where}/mirror"]
    assert mirror["description"].startswith("Give each frame back.")
