"""`ctx.invoke`: functions that call functions, in the dev runner and in contexts built by hand."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.conftest import EXAMPLES, Runner, write_project

from gen_worker import ActionContext, ResourceError, RetryableError, ValidationError
from gen_worker.errors import DeadlineError, FatalError, OutputError
from gen_worker.testing.called import Called
from gen_worker.testing.end_to_end import EndToEnd

CODE = """
class In(msgspec.Struct):
    text: str = ""
    times: int = 0
    folder: str = ""

class Out(msgspec.Struct):
    text: str

class Item(msgspec.Struct):
    number: int

class Raised(msgspec.Struct):
    kind: str
    text: str

def note(payload, line):
    with (Path(payload.folder) / "notes").open("a") as file: file.write(line + "\\n")

@worker_function()
def leaf(ctx: ActionContext, payload: In) -> Out:
    if payload.text == "validation": raise ValidationError("no such text")
    if payload.text == "value": raise ValueError("a plain ValueError")
    if payload.text == "retryable": raise RetryableError("later")
    if payload.text == "resource": raise ResourceError("no room")
    if payload.text == "fatal": raise FatalError("never")
    if payload.text == "bug": raise KeyError("a bug")
    return Out(payload.text.upper())

@worker_function()
def slow(ctx: ActionContext, payload: In) -> Out:
    note(payload, "began")
    while not ctx.is_canceled(): time.sleep(0.005)
    note(payload, "stopped")
    raise InterruptedError("canceled")

@worker_function()
def items(ctx: ActionContext, payload: In) -> Iterator[Item]:
    for number in range(payload.times):
        if ctx.is_canceled(): raise InterruptedError("canceled")
        yield Item(number)

@worker_function()
def sync_parent(ctx: ActionContext, payload: In) -> Out:
    return Out(ctx.invoke_sync("leaf", payload, output=Out).text + "!")

@worker_function()
async def parent(ctx: ActionContext, payload: In) -> Out:
    found = await asyncio.gather(*(ctx.invoke("leaf", In(f"{payload.text}{number}"), output=Out) for number in range(payload.times)))
    return Out(" ".join(each.text for each in found))

@worker_function()
def catcher(ctx: ActionContext, payload: In) -> Raised:
    try:
        ctx.invoke_sync("demo/leaf", payload)
    except Exception as exc:
        return Raised(type(exc).__name__, str(exc))
    return Raised("", "")

@worker_function()
def passes_on(ctx: ActionContext, payload: In) -> Out:
    return ctx.invoke_sync("leaf", payload, output=Out)

@worker_function()
def waits(ctx: ActionContext, payload: In) -> Out:
    ctx.invoke_sync("slow", payload)
    return Out("")

@worker_function()
async def leaves_it(ctx: ActionContext, payload: In) -> Out:
    asyncio.ensure_future(ctx.invoke("slow", payload))
    while not (Path(payload.folder) / "notes").exists(): await asyncio.sleep(0.005)
    return Out("done")

@worker_function()
def sums(ctx: ActionContext, payload: In) -> Out:
    return Out(str(sum(item.number for item in ctx.stream_sync("items", payload, output=Item))))

@worker_function()
async def first_items(ctx: ActionContext, payload: In) -> Out:
    found = []
    async for item in ctx.stream("items", In(times=1_000_000), output=Item):
        found.append(item.number)
        if len(found) == payload.times: break
    return Out(str(found))

@worker_function()
async def a_list(ctx: ActionContext, payload: In) -> Out:
    return Out(str(await ctx.invoke("items", payload)))

@worker_function()
def deeper(ctx: ActionContext, payload: In) -> Out:
    if not payload.times: return Out("bottom")
    return ctx.invoke_sync("deeper", In(times=payload.times - 1), output=Out)

@worker_function()
async def blocks(ctx: ActionContext, payload: In) -> Out:
    return ctx.invoke_sync("leaf", payload, output=Out)

@worker_function()
def calls(ctx: ActionContext, payload: In) -> Out:
    return ctx.invoke_sync(payload.text, {"text": "x"}, output=Out)

@worker_function()
def other_type(ctx: ActionContext, payload: In) -> Out:
    return Out(str(ctx.invoke_sync("leaf", payload, output=Item)))

@worker_function()
def short_time(ctx: ActionContext, payload: In) -> Out:
    return Out(str(round(ctx.time_remaining_s() or -1)))

@worker_function()
def asks_for_the_time(ctx: ActionContext, payload: In) -> Out:
    return ctx.invoke_sync("short-time", payload, output=Out)
"""
TOML = "[functions.deeper]\nmax_concurrency = 1\n[functions.leaf]\nmax_concurrency = 2\n"


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    folder = tmp_path_factory.mktemp("invoke")
    found = Runner(write_project(folder / "project", CODE, TOML), folder / "outputs")
    yield found
    found.stop()


def output(runner: Runner, function: str, payload: dict[str, Any], **options: Any) -> Any:
    answer = runner.run(function, payload, **options)
    assert answer.status_code == 200, answer.text
    return answer.json()["output"]


def test_a_function_calls_another(runner: Runner) -> None:
    assert output(runner, "sync-parent", {"text": "a"}) == {"text": "A!"}
    assert output(runner, "parent", {"text": "a", "times": 20}) == {"text": " ".join(f"A{number}" for number in range(20))}


@pytest.mark.parametrize(
    ("text", "kind", "told"),
    [
        ("validation", "ValidationError", "no such text"),
        ("value", "ValidationError", "a plain ValueError"),
        ("retryable", "RetryableError", "later"),
        ("resource", "ResourceError", "no room"),
        ("fatal", "FatalError", "never"),
        ("bug", "WorkerError", "KeyError: 'a bug'"),
    ],
)
def test_an_error_arrives_as_what_it_was(runner: Runner, text: str, kind: str, told: str) -> None:
    found = output(runner, "catcher", {"text": text})
    assert (found["kind"], told in found["text"]) == (kind, True), found


def test_an_error_that_nobody_catches_is_the_callers_too(runner: Runner) -> None:
    for text, status, error_type in (("validation", 400, "validation"), ("retryable", 503, "retryable"), ("bug", 500, "internal")):
        answer = runner.run("passes-on", {"text": text})
        assert (answer.status_code, answer.json()["error_type"]) == (status, error_type), answer.text


def test_a_payload_is_checked(runner: Runner) -> None:
    found = output(runner, "catcher", {"text": "x"})
    assert found == {"kind": "", "text": ""}
    assert runner.run("other-type", {"text": "x"}).json()["error_type"] == "fatal"


def test_streams(runner: Runner) -> None:
    assert output(runner, "sums", {"times": 1000}) == {"text": str(sum(range(1000)))}
    assert output(runner, "first-items", {"times": 3}) == {"text": "[0, 1, 2]"}
    assert output(runner, "a-list", {"times": 2}) == {"text": "[{'number': 0}, {'number': 1}]"}


def test_a_cancelled_run_takes_what_it_called_with_it(runner: Runner, tmp_path: Path) -> None:
    started = runner.http.post("/v1/run/waits", json={"payload": {"folder": str(tmp_path)}}, headers={"prefer": "respond-async"}).headers[
        "location"
    ]
    notes = tmp_path / "notes"
    runner.until(notes.exists)
    assert runner.http.post(f"{started}/cancel").json()["status"] == "canceled"
    runner.until(lambda: "stopped" in notes.read_text())


def test_what_is_left_behind_ends_with_its_run(runner: Runner, tmp_path: Path) -> None:
    assert output(runner, "leaves-it", {"folder": str(tmp_path)}) == {"text": "done"}
    runner.until(lambda: "stopped" in (tmp_path / "notes").read_text())


def test_time_that_is_left_is_handed_on(runner: Runner) -> None:
    assert int(output(runner, "asks-for-the-time", {}, timeout_ms=20_000)["text"]) in range(1, 21)
    assert output(runner, "asks-for-the-time", {})["text"] == "-1"


def test_functions_call_one_another_eight_deep_at_most(runner: Runner) -> None:
    assert output(runner, "deeper", {"times": 7}) == {"text": "bottom"}, "with one slot, which the waiting runs share"
    answer = runner.run("deeper", {"times": 8})
    assert (answer.json()["error_type"], "8 deep at most" in answer.json()["safe_message"]) == ("fatal", True), answer.text


def test_waiting_on_a_loop_is_refused(runner: Runner) -> None:
    assert "await ctx.invoke" in runner.run("blocks", {}).json()["error_message"]


def test_cozyctl_run_calls_functions_too_and_names_the_nearest(project: Callable[..., Path]) -> None:
    code = CODE + "\n@worker_function()\ndef wrong(ctx: ActionContext, payload: In) -> Out:\n    return ctx.invoke_sync('leav', payload)\n"
    line = [str(Path(sys.executable).parent / "cozyctl"), "run", "wrong"]
    done = subprocess.run(line, cwd=project(code), capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, "Did you mean 'leaf'?" in done.stderr) == (1, True), done


@pytest.mark.parametrize(("ref", "told"), [("other/leaf", "has the functions of demo alone"), ("o/demo/none:prod", "no such function")])
def test_a_name_that_is_none(runner: Runner, ref: str, told: str) -> None:
    answer = runner.run("calls", {"text": ref})
    assert (answer.status_code, told in answer.text) == (400, True), answer.text


def test_runs_leave_room_for_what_they_call(start_runner: Callable[..., Runner], project: Callable[..., Path]) -> None:
    runner = start_runner(project(CODE, TOML), env={"WORKER_MAX_CONCURRENCY": "1"})
    assert output(runner, "parent", {"text": "a", "times": 5})["text"] == "A0 A1 A2 A3 A4"


def test_a_worker_of_a_scheduler_calls_functions_of_its_project(project: Callable[..., Path]) -> None:
    with EndToEnd(project(CODE, TOML), env={"WORKER_MAX_CONCURRENCY": "1"}) as endpoint:
        assert endpoint.run("parent", {"text": "a", "times": 5}) == {"text": "A0 A1 A2 A3 A4"}
        assert endpoint.run("catcher", {"text": "retryable"}) == {"kind": "RetryableError", "text": "later"}
        assert endpoint.run("sums", {"times": 100}) == {"text": "4950"}
        assert endpoint.run("deeper", {"times": 7}) == {"text": "bottom"}


def test_the_example(start_runner: Callable[..., Runner]) -> None:
    runner = start_runner(EXAMPLES / "pipeline")
    plot = {"topics": ["a red kite", " ", "a windy day"]}
    assert runner.run("story", plot).json()["output"] == {
        "text": "Once there was a red kite. Once there was a windy day.",
        "skipped": ["topic is empty; expected a few words"],
    }
    told = runner.http.post("/v1/run/telling", json={"topics": ["a", "b"]}, headers={"accept": "application/x-ndjson"}).text.splitlines()
    lines = [json.loads(line)["data"]["text"] for line in told if json.loads(line)["event"] == "output"]
    assert lines == ["Once there was a.", "Once there was b."]


class Vector(msgspec.Struct):
    numbers: list[float]


def test_a_test_says_what_functions_give() -> None:
    def refuse(payload: dict[str, Any]) -> None:
        raise {"later": RetryableError, "room": ResourceError, "late": DeadlineError}[payload["text"]]("told")

    called = Called(embed=lambda payload: Vector([float(len(payload["text"]))]), count=lambda payload: iter([1, 2]), refuse=refuse)
    ctx = ActionContext("run-1", children=called)
    assert ctx.invoke_sync("embed", {"text": "kite"}, output=Vector) == Vector([4.0])
    assert asyncio.run(ctx.invoke("owner/endpoint/embed:prod", {"text": "a"})) == {"numbers": [1.0]}
    assert list(ctx.stream_sync("count", {})) == ctx.invoke_sync("count", {}) == [1, 2]
    for text, kind in (("later", RetryableError), ("room", ResourceError), ("late", DeadlineError)):
        with pytest.raises(kind, match="told"):
            ctx.invoke_sync("refuse", {"text": text})
    with pytest.raises(OutputError, match="Vector"):
        ctx.invoke_sync("count", {}, output=Vector)
    with pytest.raises(TypeError, match="expected a Struct"):
        ctx.invoke_sync("count", [1])
    with pytest.raises(Exception, match="has embed, count, refuse"):
        ctx.invoke_sync("other", {})
    assert called.calls[:2] == [("embed", {"text": "kite"}), ("owner/endpoint/embed:prod", {"text": "a"})]


def test_a_context_without_them_says_so() -> None:
    with pytest.raises(RuntimeError, match=r"gen_worker\.testing\.called\.Called"):
        ActionContext("run-1").invoke_sync("embed", {})
    assert issubclass(DeadlineError, FatalError)
    assert not issubclass(ValidationError, FatalError)
