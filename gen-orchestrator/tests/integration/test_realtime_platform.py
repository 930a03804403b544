"""Realtime sessions on the platform: they wait for workers, die with them, end with the platform, and are recorded as runs."""

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import websockets
from free_ports import free_port
from platform_process import PlatformProcess
from realtime_served import Served, end_of, up_served
from serve_process import ServeProcess
from waiting import eventually

ONE_WORKER = "[scaling]\nmax = 1\nidle_s = 600\n"
Platform = tuple[Served, PlatformProcess]


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """One worker at most."""
    with up_served(tmp_path_factory.mktemp("sessions"), more=ONE_WORKER) as found:
        yield found


def figure(platform: PlatformProcess, name: str) -> float:
    return sum(value for key, value in platform.figures().items() if key.startswith(name))


async def test_a_session_is_listed_measured_and_never_repeated(up: Platform) -> None:
    served, platform = up
    before = figure(platform, 'session_frames_total{direction="in"}')
    async with served.connected("mirror?run_id=listed&priority=high") as client:
        await client.send(b"12345")
        await client.recv()
        run = served.run("listed")
        assert (run["status"], run["input"]) == ("running", {})
        assert run["session"] == {"reason": "", "frames_in": 1, "frames_out": 1, "bytes_in": 5, "bytes_out": 5}
        assert "listed" in [each["id"] for each in served.get("/v1/runs?status=running")["data"]]
        assert figure(platform, "sessions_open") == 1
        refused = served.http.post("/v1/runs/listed/retry")
        assert refused.status_code == 409
    run = await served.ended("listed")
    assert run["session"] == {"reason": "completed", "frames_in": 1, "frames_out": 1, "bytes_in": 5, "bytes_out": 5}
    assert run["receipt"]["attempts"] == 1
    assert run["receipt"]["cpu_seconds"] > 0
    await eventually(lambda: figure(platform, 'session_frames_total{direction="in"}') == before + 1)
    for path in ("/v1/runs/listed/retry", "/v1/runs/listed/golden"):
        answer = served.http.post(path, json={})
        assert (answer.status_code, "session" in answer.json()["detail"]) == (409, True), answer.text
    assert "session.ended" in platform.log.read_text()


def test_a_websocket_is_no_function(up: Platform) -> None:
    served, _ = up
    for answer in (
        served.http.post(f"{served.where}/mirror", json={}),
        served.http.put("/v1/runs/put-one?function=local/demo/mirror", json={}),
        served.http.post("/v1/chat/completions", json={"model": "local/demo/mirror", "messages": []}),
    ):
        assert answer.status_code == 400, answer.text
        assert "mirror is a websocket" in answer.text
    answer = served.http.get(f"{served.where}/echo")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST, OPTIONS")


async def test_sessions_wait_for_a_slot_and_expire(up: Platform) -> None:
    served, _ = up
    async with served.connected("pair") as first, served.connected("pair") as second:
        for n, client in enumerate((first, second)):
            await client.send(str(n))
            assert await client.recv() == str(n).encode()
        async with served.connected("pair?run_id=late&start_timeout_ms=50") as late:
            assert await end_of(late) == (1013, "expired")
        assert (await served.ended("late"))["status"] == "expired"
        async with served.connected("pair?run_id=third") as third:
            await third.send("waits with its client")
            await eventually(lambda: served.run("third")["status"] == "queued")
            await first.close()
            assert await third.recv() == b"waits with its client"
        async with served.connected("pair?run_id=fourth") as fourth, served.connected("pair?run_id=fifth") as fifth:
            await fourth.send("x")
            assert await fourth.recv() == b"x"
            await fifth.close()  # it leaves while it waits
        assert (await served.ended("fifth"))["status"] == "canceled"


async def test_a_release_stays_with_a_session_that_is_open(up: Platform) -> None:
    served, platform = up
    main = next(platform.project.rglob("main.py"))
    async with served.connected("once:dev?run_id=before") as before:
        first = served.run("before")["release_id"]
        text = main.read_text()
        main.write_text(text.replace("await sock.send_bytes(data)\n        return", 'await sock.send_bytes(b"new")\n        return'))
        await eventually(lambda: served.get("/v1/endpoints/local/demo/functions/once/tags/dev").get("release_id") != first, 60)
        async with served.connected("once:dev") as after:
            await after.send("x")
            assert await after.recv() == b"new"
        await before.send("x")
        assert await before.recv() == b"x"


async def test_a_lost_worker_ends_its_sessions_and_nothing_else(up: Platform) -> None:
    served, platform = up
    async with served.connected("mirror?run_id=lost") as client, served.connected("stubborn?run_id=lost-too") as other:
        await client.send("x")
        await client.recv()
        await eventually(lambda: served.run("lost-too")["status"] == "running")
        worker_id = served.run("lost")["worker_id"]
        os.kill(platform.worker_pids()[worker_id], signal.SIGKILL)
        assert await end_of(client) == (1012, "worker_lost")
        assert await end_of(other) == (1012, "worker_lost")
    run = await served.ended("lost")
    assert (run["status"], run["error"]["code"], run["error"]["retryable"], run["attempt"]) == ("failed", "worker_lost", True, 1)
    assert run["session"]["reason"] == "worker_lost"
    async with served.connected("mirror") as client:
        await client.send("again")
        assert await client.recv() == b"again"


async def test_a_full_queue_is_told_by_a_close_code(tmp_path: Path) -> None:
    with up_served(tmp_path, more="[functions.mirror]\nqueue_max = 1\n[scaling]\nmax = 0\n") as (served, _):
        async with served.connected("mirror?run_id=waits") as waits:
            async with served.connected("mirror") as refused:
                assert await end_of(refused) == (1013, "overloaded")
            assert served.run("waits")["status"] == "queued"
            assert served.http.post("/v1/runs/waits/cancel").json()["status"] == "canceled"
            assert await end_of(waits) == (1011, "error:CanceledError")


async def test_the_platform_stops_and_dies(tmp_path: Path) -> None:
    with up_served(tmp_path, more=ONE_WORKER, env={"GEN_ORCHESTRATOR_SESSION_IDLE_S": "1"}) as (served, platform):
        async with served.connected("stubborn?run_id=idle") as idle:
            assert await end_of(idle) == (1008, "idle_timeout")
        assert (await served.ended("idle"))["status"] == "canceled"
        async with served.connected("patient?run_id=cut") as cut:
            await eventually(lambda: served.run("cut")["status"] == "running", 60)
            platform.kill()
            with pytest.raises(websockets.ConnectionClosed):
                await cut.recv()
        platform.start()
        run = platform.run("cut")
        assert (run["status"], run["error"]["code"]) == ("failed", "worker_lost")
        again = Served(platform.url, served.where, [])
        async with again.connected("mirror") as open_one, again.connected("stubborn") as stubborn:
            await open_one.send("x")
            assert await open_one.recv() == b"x"
            stopping = asyncio.create_task(asyncio.to_thread(platform.stop))
            assert await end_of(open_one) == (1001, "worker_draining")
            assert await end_of(stubborn) == (1001, "worker_draining")
            assert await stopping == 0
        again.close()


async def test_keys(tmp_path: Path) -> None:
    with up_served(tmp_path, "--keys", more=ONE_WORKER) as (served, platform):
        operator = {"authorization": f"Bearer {(platform.data / 'operator.key').read_text().strip()}"}

        def made(owner: str, scope: str, **budgets: Any) -> str:
            body = {"owner": owner, "scopes": [scope], **budgets}
            return str(served.http.post("/v1/keys", json=body, headers=operator).json()["key"])

        ours = made("local", "invoke")
        for key, status in (("", 401), (ours + "x", 401), (made("local", "publish"), 403), (made("bob", "admin"), 404)):
            with pytest.raises(websockets.InvalidStatus) as refused:
                async with served.connected("mirror", additional_headers={"authorization": f"Bearer {key}"} if key else None):
                    pass
            assert refused.value.response.status_code == status
        async with served.connected("mirror", additional_headers={"authorization": f"Bearer {ours}"}) as client:
            await client.send("by header")
            assert await client.recv() == b"by header"
        async with served.connected("mirror", subprotocols=["cozy.realtime", f"cozy.key.{ours}"]) as client:
            await client.send("by subprotocol")
            assert await client.recv() == b"by subprotocol"
        bounded = {"authorization": f"Bearer {made('local', 'invoke', concurrency=1)}"}
        async with served.connected("mirror", additional_headers=bounded), served.connected("mirror", additional_headers=bounded) as second:
            assert await end_of(second) == (1013, "budget_exhausted")
        assert ours not in platform.log.read_text()
        usage = served.http.get("/v1/usage", headers=operator).json()
        assert usage


async def test_a_node_that_stands_by_carries_sessions_to_the_leader(tmp_path: Path, postgres_url: str) -> None:
    from realtime_served import write_realtime

    project, data, port = write_realtime(tmp_path, ONE_WORKER), tmp_path / "data", free_port()
    model = ("--model", f"a={tmp_path / 'model'}")
    first = ServeProcess(project, data, postgres_url, "first", *model, env={"GEN_ORCHESTRATOR_PEERS": f"127.0.0.1:{port}"})
    first.until(lambda: first.role() == "leader")
    second = ServeProcess(
        project, data, postgres_url, "second", "--worker-listen", f"127.0.0.1:{port}", "--peer", first.worker_address, *model
    )
    served = Served(second.url, "/v1/local/demo", [])
    try:
        second.until(lambda: second.role() == "standby")
        async with served.connected("mirror?run_id=carried", subprotocols=["cozy.realtime"]) as client:
            assert client.subprotocol == "cozy.realtime"
            for sent in (b"x", b"y" * 3_000_000):
                await client.send(sent)
                assert await client.recv() == sent
        assert (await served.ended("carried"))["status"] == "succeeded"
        async with served.connected("flood", max_queue=1) as client:
            await client.send("300 100000")
            for n in range(300):
                frame = await client.recv()
                assert isinstance(frame, bytes)
                assert int.from_bytes(frame[:4], "big") == n
        with pytest.raises(websockets.InvalidStatus) as refused:
            async with served.connected("mirro"):
                pass
        assert refused.value.response.status_code == 404
        assert b"Did you mean 'mirror'?" in refused.value.response.body
        async with served.connected("mirror?run_id=cut") as client:
            await client.send("x")
            await client.recv()
            first.kill()
            with pytest.raises(websockets.ConnectionClosed):
                await client.recv()
        second.until(lambda: second.role() == "leader")
        assert (await served.ended("cut"))["error"]["code"] == "worker_lost"
        async with served.connected("mirror") as client:
            await client.send("the new leader's")
            assert await client.recv() == b"the new leader's"
    finally:
        served.close()
        for node in (first, second):
            node.close()
