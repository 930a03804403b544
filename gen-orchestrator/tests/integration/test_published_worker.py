"""Published workers (gen-worker 0.3.2, plain protocol 1.0) with our orchestrator: they serve, stream, fail, and reconnect without losing
anything."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from free_ports import free_port
from platform_process import PlatformProcess
from published_worker import published_worker, write_published_project
from realtime_served import Served, end_of
from waiting import eventually

from gen_orchestrator.auth.worker_tokens import WorkerClaims, WorkerTokens, id_by_hand

WAIT_S = 60


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[PlatformProcess]:
    """A platform that starts no workers, and one published worker that has joined."""
    project, port = write_published_project(tmp_path / "probe"), free_port()
    started = PlatformProcess(project, tmp_path / "data", "--worker-listen", f"127.0.0.1:{port}")
    try:
        release_id = started.status()["tags"][0]["release_id"]
        token = WorkerTokens.from_folder(tmp_path / "data").issue(WorkerClaims(id_by_hand(release_id), "local", release_id))
        with published_worker(project, f"127.0.0.1:{port}", token):
            started.until(lambda: [each for each in started.status()["workers"] if each["state"] == "idle"])
            yield started
    finally:
        started.close()


def notes(folder: Path) -> list[str]:
    path = folder / "notes"
    return path.read_text().splitlines() if path.exists() else []


def test_it_serves_streams_fails_and_is_tried_again(platform: PlatformProcess, tmp_path: Path) -> None:
    done = platform.invoke("echo", {"text": "hello"}).json()
    assert (done["status"], done["output"], done["attempt"]) == ("succeeded", {"text": "hello"}, 1)
    failed = platform.invoke("refuse", {})
    assert (failed.status_code, failed.json()["error"]["code"], failed.json()["error"]["detail"]) == (400, "validation", "text is empty")
    assert platform.invoke("echo", {"text": 5}).status_code == 400
    later = platform.run(platform.submit("later", {"times": 2, "folder": str(tmp_path)}), WAIT_S)
    assert (later["status"], later["attempt"], later["output"]["text"]) == ("succeeded", 2, "at last")
    events = platform.events(platform.submit("count", {"times": 50}))
    assert [data["number"] for _, name, data in events if name == "output"] == list(range(50))
    assert events[-1][2]["status"] == "succeeded"
    canceled = platform.submit("sleep", {"seconds": 60, "text": "c", "folder": str(tmp_path)})
    platform.until(lambda: "c began" in notes(tmp_path))
    platform.http.post(f"/v1/runs/{canceled}/cancel")
    assert platform.run(canceled, WAIT_S)["status"] == "canceled"


def test_many_runs_at_once(platform: PlatformProcess) -> None:
    ids = [platform.submit("echo", {"text": str(number)}) for number in range(200)]
    assert [platform.run(run_id, WAIT_S)["output"]["text"] for run_id in ids] == [str(number) for number in range(200)]


def test_files_in_and_out(platform: PlatformProcess) -> None:
    saved = platform.invoke("save", {"text": "kept"}).json()
    ref = saved["output"]["file"]["ref"]
    assert platform.http.get(f"/v1/files/local/{ref}").text == "kept"
    assert platform.invoke("read", {"file": {"ref": ref}}).json()["output"]["text"] == "kept"


async def test_it_serves_websockets(platform: PlatformProcess) -> None:
    """Without flow control, which it does not know."""
    served = Served(platform.url, "/v1/local/probe", [])
    async with talking(served, "mirror?run_id=plain") as client:
        for n in range(200):
            await client.send(bytes(n))
            assert await client.recv() == f'{{"heard":{n}}}'
    assert (await served.ended("plain"))["session"]["frames_in"] == 200
    for word, ending in (("close", (1000, "closed")), ("fail", (1011, "error:ValueError"))):
        async with talking(served, f"mirror?run_id={word}") as client:
            await client.send(word)
            assert await end_of(client) == ending
        assert (await served.ended(word))["status"] == ("succeeded" if word == "close" else "failed")
    async with talking(served, "mirror", max_queue=1) as client:
        await client.send("flood 100")
        for n in range(100):
            frame = await client.recv()
            assert isinstance(frame, bytes)
            assert int.from_bytes(frame[:4], "big") == n
    async with talking(served, "mirror?run_id=canceled") as client:
        await client.send("x")
        await client.recv()
        assert served.http.post("/v1/runs/canceled/cancel").json()["status"] == "canceled"
        assert (await end_of(client))[0] in (1000, 1011)  # it knows one way to end a session, which says `completed`
    async with talking(served, "mirror", max_queue=1) as client:
        await client.send("flood 3000")
        assert (await client.recv())[:4] == bytes(4)
        assert await end_of_slow(served, client) == (1008, "slow_consumer"), "300 MB for a client that does not read are not kept"
    served.close()


@asynccontextmanager
async def talking(served: Served, path: str, **options: Any) -> AsyncIterator[Any]:
    """A session whose handler has said that it is there."""
    async with served.connected(path, **options) as client:
        assert await client.recv() == '"here"'
        yield client


async def end_of_slow(served: Served, client: Any) -> tuple[int, str]:
    """The end of a session whose client reads only once the session is over."""
    await eventually(lambda: not served.get("/v1/status")["open_runs"], 60)
    return await end_of(client)


def test_nothing_is_lost_when_the_orchestrator_dies(platform: PlatformProcess, tmp_path: Path) -> None:
    """What it runs meanwhile goes on; a result that was lost with the stream is made again; a stream starts over, whole."""
    ended = platform.submit("sleep", {"seconds": 60, "text": "ended", "folder": str(tmp_path)})
    counting = platform.submit("count", {"times": 100, "seconds": 0.03})
    waiting = [platform.submit("echo", {"text": str(number)}) for number in range(20)]
    platform.until(lambda: notes(tmp_path) and platform.run(counting)["status"] == "running")
    platform.kill()
    (tmp_path / "go").touch()  # it ends while nobody listens
    platform.until(lambda: "ended ended" in notes(tmp_path))
    platform.start()
    run = platform.run(ended, WAIT_S)
    assert (run["status"], run["output"]["text"]) == ("succeeded", "ended"), run
    assert [platform.run(run_id, WAIT_S)["output"]["text"] for run_id in waiting] == [str(number) for number in range(20)]
    events = platform.events(counting)
    last = platform.run(counting)["attempt"]
    outputs = [(ident, data["number"]) for ident, name, data in events if name == "output"]
    assert outputs[-100:] == [(f"{last}-{number + 1}", number) for number in range(100)]
    assert events[-1][2]["status"] == "succeeded"


def test_a_long_run_goes_on_over_the_orchestrators_death(platform: PlatformProcess, tmp_path: Path) -> None:
    """It is not executed again: its worker has it still."""
    run_id = platform.submit("sleep", {"seconds": 60, "text": "long", "folder": str(tmp_path)})
    platform.until(lambda: notes(tmp_path))
    for _ in range(2):
        platform.kill()
        platform.start()
        platform.until(lambda: platform.run(run_id)["status"] == "running")
        assert platform.invoke("echo", {"text": "beside it"}).json()["status"] == "succeeded"
    (tmp_path / "go").touch()
    run = platform.run(run_id, WAIT_S)
    assert (run["status"], run["attempt"], run["output"]["text"]) == ("succeeded", 1, "long"), run
    assert notes(tmp_path) == ["long began", "long ended"]
