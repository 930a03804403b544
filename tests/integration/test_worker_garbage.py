"""No author, scheduler or file may end a worker or keep others from being served. One real worker, many bad values."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import Runner, WorkerProcess

from gen_worker.testing.loopback import LoopbackScheduler
from gen_worker.wire.messages import (
    InterruptRun,
    LoadModel,
    LoadModelResult,
    ModelRefSpec,
    ModelsByKey,
    ReleaseConfig,
    ResolvedFile,
    ResolvedModel,
    UnloadModel,
    UrlRefreshResponse,
)

CODE = """
import enum

class In(msgspec.Struct):
    kind: str = ""

class Out(msgspec.Struct):
    text: str

class Color(enum.Enum):
    RED = "red"

class Name(str, enum.Enum):
    RED = "custom.red"

class Bad:
    def __str__(self):
        raise RuntimeError("no text")
    __repr__ = __str__

class Mine(dict):
    def keys(self):
        raise SystemExit(3)

BAD = [
    (None, {"x": 1}), (5, {}), (["x"], {}), (b"x", {}), (Color.RED, {}), ("", {}), (Bad(), {}), ("t" * 20_000_000, {}),
    ("x", 5), ("x", [1, 2]), ("x", "text"), ("x", {5: 6}), ("x", {"a": Bad()}), ("x", {"a": object()}), ("x", {"a": 10**400}),
    ("x", {"a": "\\ud800"}), ("big", {"d": "y" * 2_000_000}), ("x", Bad()),
]

@worker_function()
def emits(ctx: ActionContext, payload: In) -> Out:
    for event_type, body in BAD:
        ctx.emit(event_type, body)
    ctx.emit(Name.RED, {"n": 1})
    ctx.emit("a\\ud800b", {"n": 2})
    ctx.emit("\\0", {"n": 3})
    ctx.emit("custom.last", None)
    return Out("done")

class Toy:
    @classmethod
    def from_pretrained(cls, path):
        kind = (Path(path) / "kind").read_text()
        if kind == "size":
            toy = cls()
            toy.size_bytes = 10**30
            return toy
        raise {"exit": SystemExit(0), "interrupt": KeyboardInterrupt(), "stop": StopIteration(), "cancel": asyncio.CancelledError(),
               "generator": GeneratorExit(), "bad": RuntimeError(Bad())}[kind]

@worker_function()
def loads(ctx: ActionContext, toy: Annotated[Toy, ModelRef(ModelRefSource.PAYLOAD, "kind")], payload: In) -> Out:
    return Out("loaded")

@worker_function()
def echo(ctx: ActionContext, payload: In) -> Out:
    return Out(payload.kind)

@worker_websocket()
async def raises(ctx: ActionContext, sock: RealtimeSocket) -> None:
    async for data in sock.iter_bytes():
        ctx.emit(None, {})
        raise RuntimeError(Bad())
"""
KINDS = ("exit", "interrupt", "stop", "cancel", "generator", "bad")
COZY = "[models]\n" + "".join(f'{kind} = "cozy:o/{kind}"\n' for kind in (*KINDS, "size"))
HEX = "ab" * 32
BAD_REFS = (
    "cozy:a/b@sha256:abcd",
    "cozy:a/b@sha256:" + "ab" * 31,
    "cozy:a/b@blake3:" + "g" * 64,
    "hf:../../x",
    "hf:a/b@../../x",
    "",
    " ",
    "a\0b",
    "cozy:a/b\0",
    "cozy:" + "a" * 5000,
    "/etc/passwd",
    "file:///etc/passwd",
    "\u202e/\u202e",
)
BAD_MODELS = (
    ResolvedModel("sha256:abcd", (ResolvedFile("x", 1, "zz", "http://x"),)),
    ResolvedModel("../../../x", (ResolvedFile("../../y", 1, HEX, "http://127.0.0.1:9/x"),)),
    ResolvedModel("", ()),
    ResolvedModel(f"blake3:{HEX}", (ResolvedFile("y", -5, HEX, "http://127.0.0.1:9/x"),)),
    ResolvedModel(f"blake3:{HEX}", (ResolvedFile("y", 2**62, HEX, "http://127.0.0.1:9/x"),)),
    ResolvedModel(f"blake3:{HEX}", (ResolvedFile("y", 5, HEX, "http://[::bad/x"),)),
    ResolvedModel(f"blake3:{HEX}", (ResolvedFile("y", 5, HEX, "file:///etc/passwd"),)),
    ResolvedModel(f"blake3:{HEX}", (ResolvedFile("y", 5, HEX, "http://h:99999999/x"),)),
    ResolvedModel(f"blake3:{HEX}", (ResolvedFile("y", 5, HEX, "http://h\u00e9\r\nx: y/\u20ac"),)),
    ResolvedModel(f"blake3:{HEX}", (ResolvedFile("y\0", 5, HEX, ""), ResolvedFile("y\0/z", 5, HEX, ""))),
)
Start = Callable[..., WorkerProcess]


@pytest.fixture
def folder(project: Callable[..., Path], tmp_path: Path) -> Path:
    for kind in (*KINDS, "size"):
        (tmp_path / kind).mkdir()
        (tmp_path / kind / "kind").write_text(kind)
    return project(CODE, COZY)


@asynccontextmanager
async def served(start_worker: Start, folder: Path, tmp_path: Path, **env: str) -> AsyncIterator[tuple[LoopbackScheduler, WorkerProcess]]:
    overrides = ",".join(f"{kind}={tmp_path / kind}" for kind in (*KINDS, "size"))
    async with LoopbackScheduler() as scheduler:
        worker = start_worker(folder, scheduler.address, COZY_MODEL_OVERRIDES=overrides, WORKER_DEVICE="cpu", **env)
        await scheduler.worker()
        yield scheduler, worker
        assert worker.process.poll() is None, worker.log[-3000:]
        assert await scheduler.call("echo", {"kind": "still here"}) == {"text": "still here"}
        assert scheduler.streams == 1


async def test_events_that_nobody_can_send_are_dropped_and_the_others_arrive(start_worker: Start, folder: Path, tmp_path: Path) -> None:
    async with served(start_worker, folder, tmp_path) as (scheduler, worker):
        run = await scheduler.start_run("emits")
        assert await run.output() == {"text": "done"}
        custom = [event.event_type for event in run.events if not event.event_type.startswith(("task.", "metrics.", "x"))]
        assert all(json.loads(event.payload) for event in run.events)
        assert custom == ["custom.red", "a?b", "\0", "custom.last"]
        assert worker.log.count("run.event_lost") >= 14


async def test_models_whose_code_raises_anything_are_failed_runs(start_worker: Start, folder: Path, tmp_path: Path) -> None:
    async with served(start_worker, folder, tmp_path) as (scheduler, _):
        for kind in KINDS:
            result = await (await scheduler.start_run("loads", {"kind": kind})).result()
            assert (kind, result.success) == (kind, False)
            (await scheduler.worker()).send(LoadModel(kind))
            await scheduler.until(lambda kind=kind: any(a.model_id == f"cozy:o/{kind}:latest" for a in scheduler.answers))  # type: ignore[misc]
        assert all(isinstance(answer, LoadModelResult) and not answer.success for answer in scheduler.answers)


async def test_a_size_that_no_number_of_the_wire_holds(start_worker: Start, folder: Path, tmp_path: Path) -> None:
    async with served(start_worker, folder, tmp_path) as (scheduler, _):
        await (await scheduler.start_run("loads", {"kind": "size"})).result()
        worker = await scheduler.worker()
        heard = len(worker.registrations)
        worker.send(UnloadModel("nothing"))
        await scheduler.until(lambda: len(worker.registrations) > heard)


async def test_commands_with_refs_that_nobody_can_read_are_answered(start_worker: Start, folder: Path, tmp_path: Path) -> None:
    async with served(start_worker, folder, tmp_path) as (scheduler, _):
        worker = await scheduler.worker()
        for ref in BAD_REFS:
            scheduler.answers.clear()
            worker.send(LoadModel(ref))
            worker.send(UnloadModel(ref))
            await scheduler.until(lambda: len(scheduler.answers) == 2)
            load = next(answer for answer in scheduler.answers if isinstance(answer, LoadModelResult))
            assert not load.success
            assert load.error_message


async def test_configurations_with_bad_items_serve_the_good_ones(start_worker: Start, folder: Path, tmp_path: Path) -> None:
    async with served(start_worker, folder, tmp_path) as (scheduler, _):
        worker = await scheduler.worker()
        keys = {f"key{number}": ModelRefSpec(ref, ("evil", "\0")) for number, ref in enumerate(BAD_REFS)}
        worker.send(
            ReleaseConfig(
                supported_refs=("*",),
                ref_by_key={"flat": "hf:../../x"},
                required_refs=BAD_REFS,
                models_by_function={
                    "loads": ModelsByKey(keys),
                    "no such function": ModelsByKey(keys),
                    "": ModelsByKey({"": ModelRefSpec()}),
                },
            )
        )

        def of_type(event_type: str) -> list[Any]:
            return [json.loads(event.payload) for event in scheduler.events if event.event_type == event_type]

        await scheduler.until(lambda: len(of_type("model.download.failed")) == len(BAD_REFS))
        assert {bad["message"][:5] for bad in of_type("release.bad_ref")} <= {"canno", "model"}
        scheduler.answers.clear()
        for key in keys:
            worker.send(LoadModel(key))
            result = await (await scheduler.start_run("loads", {"kind": key})).result()
            assert not result.success
        await scheduler.until(lambda: len(scheduler.answers) == len(keys))
        assert not any(isinstance(answer, LoadModelResult) and answer.success for answer in scheduler.answers)


async def test_file_lists_that_cannot_be_used_fail_their_own_download(start_worker: Start, folder: Path, tmp_path: Path) -> None:
    async with served(start_worker, folder, tmp_path) as (scheduler, _):
        worker = await scheduler.worker()
        refs = {f"cozy:a/m{number}": resolved for number, resolved in enumerate(BAD_MODELS)}
        worker.send(ReleaseConfig(required_refs=tuple(refs), resolved_models=refs))
        worker.send(UrlRefreshResponse("\0", BAD_MODELS[1]))
        worker.send(InterruptRun("../../x"))
        failed = "model.download.failed"
        await scheduler.until(lambda: sum(event.event_type == failed for event in scheduler.events) == len(refs), 60)


async def test_bad_files_in_the_store_hide_nothing(start_worker: Start, folder: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    for place in (cache, *(cache / name for name in ("cas", "cas/v1"))):
        for kind in ("refs", "manifests", "snapshots", "locks", "blobs/blake3"):
            (place / kind).mkdir(parents=True, exist_ok=True)
        for number, text in enumerate(
            (
                '{"ref": "cozy:a/b:latest", "digest": "junk"}',
                '{"ref": "cozy:a/c:latest", "digest": "../../x"}',
                "[]",
                "{",
                "\0",
                "5",
                "null",
            )
        ):
            (place / "refs" / f"x{number}.json").write_text(text)
            (place / "manifests" / f"x{number}.json").write_text(text)
        (place / "refs" / "folder.json").mkdir()
        (place / "manifests" / f"blake3:{HEX}.json").write_text(
            json.dumps({"digest": f"blake3:{HEX}", "files": [{"path": "../../../etc/passwd", "size_bytes": 1, "digest": "x"}]})
        )
        (place / "refs" / "y.json").write_text(json.dumps({"ref": "cozy:a/d:latest", "digest": f"blake3:{HEX}"}))
    (cache / "measured.json").write_text('{"net": "fast"}')
    async with served(start_worker, folder, tmp_path, TENSORHUB_CACHE_DIR=str(cache)) as (scheduler, _):
        await scheduler.until(lambda: any(event.event_type == "models.disk_inventory" for event in scheduler.events))
        worker = await scheduler.worker()
        worker.send(ReleaseConfig(required_refs=("cozy:a/b", "cozy:a/d")))
        await scheduler.until(lambda: sum(event.event_type == "model.download.failed" for event in scheduler.events) == 2)


async def test_realtime_handlers_that_raise_what_cannot_be_shown(start_worker: Start, folder: Path, tmp_path: Path) -> None:
    async with served(start_worker, folder, tmp_path) as (scheduler, _):
        client = await scheduler.open_realtime("raises")
        await client.send(b"x")
        assert await client.receive() is None
        assert client.reason == "error:RuntimeError"


async def test_a_bad_ref_in_a_baked_manifest_fails_its_own_runs(start_worker: Start, folder: Path, tmp_path: Path) -> None:
    """Images are built by older versions, too, which took digests of any length."""
    from gen_worker.discover import discover_manifest

    manifest = discover_manifest(folder)
    text = json.dumps(manifest).replace("cozy:o/exit", "cozy:a/b@sha256:abcd")
    baked = tmp_path / "manifest.json"
    baked.write_text(text)
    async with LoopbackScheduler() as scheduler:
        start_worker(folder, scheduler.address, GEN_WORKER_MANIFEST_PATH=str(baked), WORKER_DEVICE="cpu")
        await scheduler.worker()
        result = await (await scheduler.start_run("loads", {"kind": "exit"})).result()
        assert "cannot read model ref" in result.error_message
        assert await scheduler.call("echo", {"kind": "x"}) == {"text": "x"}


def test_the_dev_runner_answers_for_bad_refs(start_runner: Callable[..., Runner], folder: Path) -> None:
    runner = start_runner(folder)
    for ref in BAD_REFS:
        assert runner.http.post("/v1/models/load", json={"model_id": ref}).status_code < 500
        assert runner.http.post("/v1/models/prefetch", json={"models": [{"ref": ref, "dtypes": ["bf16"]}]}).status_code < 500
    assert runner.run("echo", {"kind": "x"}).status_code == 200
