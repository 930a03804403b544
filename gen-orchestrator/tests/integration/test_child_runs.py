"""Runs that runs start with `ctx.invoke`: they belong to their parent, and a retry of the parent finds them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from platform_process import PlatformProcess, write_project

MORE = """
@worker_function()
def ask(ctx: ActionContext, payload: Input) -> Output:
    return ctx.invoke_sync("echo", payload, output=Output)

@worker_function()
async def ask_many(ctx: ActionContext, payload: Input) -> Output:
    import asyncio
    found = await asyncio.gather(*(ctx.invoke("echo", Input(text=str(number)), output=Output) for number in range(payload.times)))
    return Output(text=" ".join(each.text for each in found))

@worker_function()
def ask_ref(ctx: ActionContext, payload: Input) -> Output:
    try:
        return ctx.invoke_sync(payload.text, {"text": "x"}, output=Output)
    except Exception as exc:
        return Output(text=f"{type(exc).__name__}: {exc}")

@worker_function()
def twice(ctx: ActionContext, payload: Input) -> Output:
    found = ctx.invoke_sync("noted", payload, output=Output)
    if ctx.attempt == 1: raise RetryableError("once more")
    return Output(text=f"{ctx.attempt} {found.text}")

@worker_function()
def noted(ctx: ActionContext, payload: Input) -> Output:
    return Output(text=str(len(note(payload, "ran"))))

@worker_function()
def waits(ctx: ActionContext, payload: Input) -> Output:
    return ctx.invoke_sync("sleep", payload, output=Output)

@worker_function()
def total(ctx: ActionContext, payload: Input) -> Output:
    return Output(text=str(sum(item.number for item in ctx.stream_sync("count", payload, output=Delta))))

@worker_function()
async def first(ctx: ActionContext, payload: Input) -> Output:
    async for item in ctx.stream("count", Input(times=100_000, seconds=0.01), output=Delta):
        return Output(text=str(item.number))

@worker_function()
def deeper(ctx: ActionContext, payload: Input) -> Output:
    return ctx.invoke_sync("deeper", Input(times=payload.times - 1), output=Output) if payload.times else Output(text="bottom")
"""


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlatformProcess]:
    folder = tmp_path_factory.mktemp("children")
    project = write_project(folder / "probe")
    main = project / "src" / "probe" / "main.py"
    main.write_text(main.read_text() + MORE)
    started = PlatformProcess(project, folder / "data")
    yield started
    started.close()


def output(platform: PlatformProcess, function: str, payload: dict[str, Any]) -> str:
    answer = platform.invoke(function, payload)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["output"]["text"])


def children_of(platform: PlatformProcess, run_id: str) -> list[dict[str, Any]]:
    found = platform.http.get("/v1/runs", params={"limit": 500}).json()["data"]
    return [each for each in found if each.get("parent_id") == run_id]


def test_a_called_function_is_a_run_of_its_own(platform: PlatformProcess) -> None:
    run = platform.invoke("ask", {"text": "hello"}).json()
    assert run["output"]["text"] == "hello"
    (child,) = children_of(platform, run["id"])
    assert (child["function"], child["status"], child["owner"], child["release_id"]) == ("echo", "succeeded", "local", run["release_id"])
    assert output(platform, "ask-many", {"times": 20}) == " ".join(map(str, range(20)))


def test_a_retry_finds_what_was_done(platform: PlatformProcess, tmp_path: Path) -> None:
    run = platform.invoke("twice", {"folder": str(tmp_path)}).json()
    assert run["output"]["text"] == "2 1", "the second attempt has the first one's child"
    assert len(children_of(platform, run["id"])) == 1


def test_what_it_called_ends_with_a_run(platform: PlatformProcess, tmp_path: Path) -> None:
    run_id = platform.submit("waits", {"seconds": 600, "folder": str(tmp_path)})
    platform.until((tmp_path / "notes").exists)
    (child,) = children_of(platform, run_id)
    assert platform.http.post(f"/v1/runs/{run_id}/cancel").json()["status"] == "canceled"
    platform.until(lambda: platform.run(child["id"])["status"] == "canceled")


def test_streams(platform: PlatformProcess) -> None:
    assert output(platform, "total", {"times": 500}) == str(sum(range(500)))
    run = platform.invoke("first").json()
    assert run["output"]["text"] == "0"
    (child,) = children_of(platform, run["id"])
    platform.until(lambda: platform.run(child["id"])["status"] == "canceled")


@pytest.mark.parametrize(
    ("ref", "told"),
    [
        ("probe/echo", "x"),
        ("local/probe/echo:prod", "x"),
        ("refuse", "ValidationError: text is empty"),
        ("broken", "WorkerError: internal error"),
        ("ecko", "Did you mean 'echo'?"),
        ("somebody/probe/echo", "ValidationError: ctx.invoke('somebody/probe/echo'): no owner"),
        ("probe/echo:none", "has no tag 'none'"),
        ("a/b/c/d", "is not a function"),
    ],
)
def test_what_a_call_gives(platform: PlatformProcess, ref: str, told: str) -> None:
    assert told in output(platform, "ask-ref", {"text": ref})


def test_functions_call_one_another_eight_deep_at_most(platform: PlatformProcess) -> None:
    assert output(platform, "deeper", {"times": 7}) == "bottom"
    answer = platform.invoke("deeper", {"times": 8})
    assert (answer.status_code, answer.json()["error"]["code"], "8 deep" in answer.text) == (500, "fatal", True), answer.text


def test_a_run_that_waits_is_in_nobodys_way(tmp_path: Path) -> None:
    project = write_project(tmp_path / "probe")
    main = project / "src" / "probe" / "main.py"
    main.write_text(main.read_text() + MORE)
    started = PlatformProcess(project, tmp_path / "data", env={"WORKER_MAX_CONCURRENCY": "1"})
    try:
        run = started.invoke("ask-many", {"times": 3}).json()
        assert run["output"]["text"] == "0 1 2", "in the one place that the worker has"
        assert children_of(started, run["id"]) == []
    finally:
        started.close()


def test_a_copy_calls_nothing(platform: PlatformProcess) -> None:
    old = platform.http.get("/v1/endpoints/local/probe/functions/ask/tags/dev").json()["release_id"]
    main = platform.project / "src" / "probe" / "main.py"
    main.write_text(main.read_text().replace("VERSION = 1", "VERSION = 2"))
    tag = "/v1/endpoints/local/probe/functions/ask/tags/{}"
    platform.until(lambda: platform.http.get(tag.format("dev")).json()["release_id"] != old)
    new = platform.http.get(tag.format("dev")).json()["release_id"]
    assert platform.http.put(tag.format("prod") + "/shadow", json={"release_id": new, "percent": 100}).status_code == 200

    def ended() -> str:
        platform.invoke("ask", {"text": "a"})
        return str(platform.http.get(tag.format("prod") + "/shadow").json()["why"])

    assert "calls other functions" in platform.until(ended)
    found = platform.http.get(tag.format("prod") + "/shadow").json()
    assert (found["compared"], found["failed"]) == (0, 0)


def test_only_the_run_itself_asks(platform: PlatformProcess) -> None:
    run_id = platform.submit("sleep", {"seconds": 600})
    body = {"ref": "echo", "number": 1, "payload": {}}
    for headers in ({}, {"authorization": "Bearer x.y"}):
        answer: httpx.Response = platform.http.post(f"/api/v1/runs/{run_id}/children", json=body, headers=headers)
        assert answer.status_code == 401, answer.text
        assert platform.http.post(f"/api/v1/runs/{run_id}/children/{run_id}/cancel", headers=headers).status_code == 401
    assert platform.http.post(f"/v1/runs/{run_id}/cancel").json()["status"] == "canceled"
