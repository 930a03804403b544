"""`gen_worker.client` against `cozyctl up` and `cozyctl dev`: the same code, the same answers."""

import asyncio
import dataclasses
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import msgspec
import pytest
from platform_process import PlatformProcess, write_project
from proxy import CuttingProxy
from scheduler_on_a_port import in_a_loop
from waiting import eventually, until

from gen_worker.client import (
    AsyncClient,
    AuthenticationError,
    Client,
    InvalidRequestError,
    NotFoundError,
    OutputTypeError,
    RunCanceledError,
    RunEvent,
    RunExpiredError,
    RunFailedError,
)


class Said(msgspec.Struct):
    text: str
    pid: int = 0


class Counted(msgspec.Struct):
    number: int


class Wrong(msgspec.Struct):
    text: int


@dataclasses.dataclass
class Asked:
    text: str


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    with Client(url) as found:
        yield found


REF = "local/probe/"


def test_run_gives_the_output(client: Client) -> None:
    assert client.run(REF + "echo", {"text": "ä"})["text"] == "ä"
    said = client.run(REF + "echo", Asked("b"), output=Said)
    assert (type(said), said.text) == (Said, "b")
    assert client.run(REF + "count", {"times": 3}, output=list[Counted]) == [Counted(0), Counted(1), Counted(2)]
    assert client.run(REF + "count", {"times": 0}) == []


def test_run_shows_events_on_its_way(client: Client) -> None:
    events: list[RunEvent] = []
    assert client.run(REF + "progress", {"times": 3}, on_event=events.append)["text"] == "done"
    assert [event.data["stage"] for event in events if event.name == "progress"] == ["work"] * 3
    assert events[-1].name == "done"
    run_id = events[-1].data["id"]
    assert client.run(REF + "count", {"times": 2}, on_event=events.append) == [{"number": 0}, {"number": 1}]
    with pytest.raises(RunFailedError, match="text is empty"):
        client.run(REF + "refuse", on_event=events.append)

    def interrupt(event: RunEvent) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        client.run(REF + "words", {"times": 100_000, "seconds": 0.01}, idempotency_key=f"watched-{run_id}", on_event=interrupt)
    same = client.submit(REF + "words", {"times": 100_000, "seconds": 0.01}, idempotency_key=f"watched-{run_id}")
    with pytest.raises(RunCanceledError):
        same.result()


def test_submit_gives_a_handle(client: Client) -> None:
    handle = client.submit(REF + "progress", {"times": 3}, output=Said)
    names = [event.name for event in handle.events()]
    assert names.count("progress") == 3
    assert names[-1] == "done"
    assert handle.result().text == "done"
    run = handle.status()
    assert (run.id, run.status, run.finished, run.function) == (handle.id, "succeeded", True, "progress")
    assert handle.cancel().status == "succeeded"
    assert client.handle(handle.id).result()["text"] == "done"


def test_events_go_on_after_one_that_was_seen(client: Client) -> None:
    handle = client.submit(REF + "count", {"times": 20})
    outputs = [event for event in handle.events() if event.name == "output"]
    assert [event.data["number"] for event in outputs] == list(range(20))
    assert [event.data["number"] for event in handle.events(outputs[9].id) if event.name == "output"] == list(range(10, 20))
    assert [item["number"] for item in handle.items()] == list(range(20))


def test_stream_gives_items_as_they_come(client: Client) -> None:
    with client.stream(REF + "count", {"times": 4}, output=Counted) as items:
        assert list(items) == [Counted(number) for number in range(4)]
        assert client.handle(items.run_id).status().status == "succeeded"


def test_leaving_a_stream_cancels_its_run(client: Client) -> None:
    with client.stream(REF + "words", {"times": 100_000, "seconds": 0.01}) as items:
        assert len(list(islice(items, 2))) == 2
    run = client.handle(items.run_id)
    until(lambda: run.status().finished)
    assert run.status().status == "canceled"


def test_a_function_that_fails_is_no_fault_of_the_gateway(client: Client) -> None:
    with pytest.raises(RunFailedError, match="text is empty") as failed:
        client.run(REF + "refuse")
    assert (failed.value.code, failed.value.run.status) == ("validation", "failed")
    assert failed.value.run_id == failed.value.run.id
    with pytest.raises(RunFailedError) as wrong:
        client.run(REF + "echo", {"text": 5})
    assert [(error.pointer, error.expected) for error in wrong.value.errors] == [("/text", "str")]
    copy = pickle.loads(pickle.dumps(wrong.value))
    assert (str(copy), copy.run, copy.errors) == (str(wrong.value), wrong.value.run, wrong.value.errors)
    with pytest.raises(RunExpiredError) as late:
        client.run(REF + "sleep", {"seconds": 60}, timeout_s=0.2)
    assert late.value.code == "timeout"
    with pytest.raises(RunFailedError):
        list(client.stream(REF + "broken"))


def test_a_cancelled_run_says_so(client: Client) -> None:
    handle = client.submit(REF + "sleep", {"seconds": 60})
    with pytest.raises(TimeoutError, match="it continues"):
        handle.result(wait_s=0)
    assert handle.cancel().status == "canceled"
    with pytest.raises(RunCanceledError):
        handle.result()


def test_what_is_not_there_is_not_found(client: Client) -> None:
    with pytest.raises(NotFoundError, match="echo"):
        client.run(REF + "ech")
    with pytest.raises(NotFoundError):
        client.run("nothing")
    with pytest.raises(NotFoundError):
        client.handle("none").status()
    with pytest.raises(NotFoundError):
        list(client.handle("none").events())


def test_an_output_of_another_type_keeps_what_came(client: Client) -> None:
    with pytest.raises(OutputTypeError, match="Wrong") as wrong:
        client.run(REF + "echo", {"text": "a"}, output=Wrong)
    assert wrong.value.run.output["text"] == "a"


def test_a_key_is_one_run(client: Client) -> None:
    first = client.submit(REF + "echo", {"text": "a"}, idempotency_key="client-once")
    assert client.submit(REF + "echo", {"text": "a"}, idempotency_key="client-once").id == first.id
    with pytest.raises(InvalidRequestError) as clash:
        client.submit(REF + "echo", {"text": "b"}, idempotency_key="client-once")
    assert (clash.value.code, clash.value.status) == ("idempotency_key_reused", 422)


def test_ctrl_c_cancels_the_run(url: str, client: Client, tmp_path: Path) -> None:
    code = f"from gen_worker.client import Client; Client({url!r}).run('{REF}sleep', {{'seconds': 300, 'folder': {str(tmp_path)!r}}})"
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, env=os.environ)
    try:
        until(lambda: (tmp_path / "notes").exists() and "began" in (tmp_path / "notes").read_text())
        process.send_signal(signal.SIGINT)
        assert b"KeyboardInterrupt" in process.communicate(timeout=60)[1]
    finally:
        process.kill()
    run_id = (tmp_path / "notes").read_text().split()[0]
    assert client.handle(run_id).status().status == "canceled"


def test_a_key_that_is_wrong_is_told(tmp_path: Path) -> None:
    platform = PlatformProcess(write_project(tmp_path / "probe"), tmp_path / "data", "--keys")
    try:
        with pytest.raises(AuthenticationError) as refused, Client(platform.url, key="cz_wrong") as client:
            client.run(REF + "echo")
        assert (refused.value.status, refused.value.code) == (401, "auth")
    finally:
        platform.close()


@in_a_loop
async def test_the_async_client_does_the_same(url: str) -> None:
    async with AsyncClient(url) as client:
        assert (await client.run(REF + "echo", {"text": "ä"}, output=Said)).text == "ä"
        async with client.stream(REF + "count", {"times": 3}, output=Counted) as items:
            assert [item async for item in items] == [Counted(0), Counted(1), Counted(2)]
        handle = await client.submit(REF + "count", {"times": 3})
        assert [event.data["number"] async for event in handle.events() if event.name == "output"] == [0, 1, 2]
        assert [item["number"] async for item in handle.items()] == [0, 1, 2]
        assert await handle.result() == [{"number": 0}, {"number": 1}, {"number": 2}]
        assert (await handle.cancel()).status == (await handle.status()).status == "succeeded"
        with pytest.raises(RunFailedError, match="text is empty"):
            await client.run(REF + "refuse")
        slow = await client.submit(REF + "sleep", {"seconds": 60})
        with pytest.raises(TimeoutError):
            await slow.result(wait_s=0)
        assert (await slow.cancel()).status == "canceled"


@in_a_loop
async def test_cancelling_the_task_or_leaving_the_stream_cancels_the_run(url: str, tmp_path: Path) -> None:
    async with AsyncClient(url) as client:
        task = asyncio.create_task(client.run(REF + "sleep", {"seconds": 300, "folder": str(tmp_path)}))
        await eventually(lambda: (tmp_path / "notes").exists() and "began" in (tmp_path / "notes").read_text())
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        run_id = (tmp_path / "notes").read_text().split()[0]
        async with client.stream(REF + "words", {"times": 100_000, "seconds": 0.01}) as items:
            async for _ in items:
                break
        for each in (run_id, items.run_id):
            assert (await client.handle(each).status()).status == "canceled"


@in_a_loop
async def test_many_runs_at_once(url: str) -> None:
    async with AsyncClient(url) as client:
        found = await asyncio.gather(*(client.run(REF + "echo", {"text": str(number)}) for number in range(100)))
    assert [each["text"] for each in found] == [str(number) for number in range(100)]


@in_a_loop
async def test_runs_and_streams_live_through_a_platform_that_is_killed_and_started_again(tmp_path: Path) -> None:
    """Its address stays, as behind a load balancer; its worker dies with it, so that the run begins again and repeats its items."""
    platform = PlatformProcess(write_project(tmp_path / "probe"), tmp_path / "data")
    try:
        async with CuttingProxy(platform.url.removeprefix("http://")) as proxy, AsyncClient(f"http://{proxy.address}") as client:
            waiting = asyncio.create_task(client.run(REF + "sleep", {"seconds": 1, "text": "woken"}))
            numbers = []
            async with client.stream(REF + "count", {"times": 30, "seconds": 0.02}) as items:
                async for item in items:
                    numbers.append(item["number"])
                    if len(numbers) == 5:
                        platform.kill()
                        await asyncio.to_thread(platform.start)
                        proxy.target = platform.url.removeprefix("http://")
            assert numbers == list(range(30))
            assert (await waiting)["text"] == "woken"
    finally:
        platform.close()


def test_files_go_both_ways(client: Client, tmp_path: Path) -> None:
    (tmp_path / "note ä.txt").write_bytes(b"in a file" * 100_000)
    told: list[tuple[int, int]] = []
    asset = client.files.upload(tmp_path / "note ä.txt", progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (900_000, 900_000)
    assert (asset.size_bytes, asset.mime_type) == (900_000, "text/plain")
    found = client.run(REF + "read", {"image": asset, "more": [client.files.upload(b"as bytes", "notes/b.txt")]})
    assert found["texts"] == ["in a file" * 100_000, "as bytes"]
    handle = client.submit(REF + "save", {"text": "kept " * 1000})
    saved = handle.result()["file"]
    run = handle.status()
    assert (run.files[0].ref, client.files.read(run.files[0])) == (saved["ref"], b"kept " * 1000)
    told.clear()
    assert (
        client.files.download(saved["ref"], tmp_path / "back.txt", progress=lambda *each: told.append(each)).read_bytes() == b"kept " * 1000
    )
    assert told[-1] == (5000, 5000)
    with pytest.raises(NotFoundError):
        client.files.download("runs/none/outputs/x.png", tmp_path / "none")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["back.txt", "note ä.txt"]


@in_a_loop
async def test_files_go_both_ways_on_a_loop(url: str, tmp_path: Path) -> None:
    async with AsyncClient(url) as client:
        asset = await client.files.upload(b"x" * 300_000, "x.txt")
        found = await client.run(REF + "read", {"image": asset})
        assert found["texts"] == ["x" * 300_000]
        handle = await client.submit(REF + "save", {"text": "kept"})
        await handle.result()
        run = await handle.status()
        assert (await client.files.download(run.files[0], tmp_path / "x")).read_bytes() == b"kept" == await client.files.read(run.files[0])
