"""Workers that report nonsense, over real gRPC: each such message affects only that worker, and nothing that others share."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from scheduler_on_a_port import Scheduler, hello, in_a_loop

from gen_orchestrator.api.run_object import RunObjects
from gen_orchestrator.auth.worker_tokens import WorkerClaims, WorkerTokens
from gen_orchestrator.domain.runs import Run
from gen_orchestrator.domain.settings import FunctionSettings
from gen_orchestrator.scheduling.feed import decode_entries, encode_entries
from gen_orchestrator.scheduling.metrics import Metrics
from gen_worker.wire import codec
from gen_worker.wire.messages import Batch, Event, ModelTier, RunCommand, RunResult, Single

DEEP = b"[" * 600 + b"]" * 600
BAD_JSON = (b"{", b"\xff", b'"\xff"', b"nonsense", b'{"a":1e999}', DEEP, b'{"gpu_load_ms":"soon","models":5}', b'{"models":' + DEEP + b"}")
EVENTS = ("metrics.run", "task.warning", "task.model_load.stuck", "task.started", "output.delta", "progress", "log", "mine", "x" * 5000)


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> WorkerTokens:
    return WorkerTokens.from_folder(tmp_path_factory.mktemp("keys"))


class Peer:
    """A worker that answers as it is told."""

    def __init__(self, scheduler: Scheduler, stream: Any) -> None:
        self.scheduler = scheduler
        self._stream = stream
        self._lane = scheduler.dispatcher.lanes.lane("rel", "f", FunctionSettings())
        self._count = 0
        self.metrics = Metrics()

    async def answered(self, *said: Any) -> dict[str, Any]:
        """A run as it is shown after the worker has said this of it; `said` is made into messages with the run's id."""
        self._count += 1
        run = Run(
            id=f"r{self._count}",
            owner="ann",
            endpoint="e",
            function="f",
            tag="prod",
            release_id="rel",
            created_at=time.time(),
            payload=msgspec.msgpack.encode({}),
            max_attempts=1,
        )
        submitted = await self.scheduler.dispatcher.submit(run, self._lane)
        assert submitted.open is not None
        command = await self._command()
        for message in said:
            await self._stream.send(codec.encode(msgspec.structs.replace(message, run_id=command.run_id, attempt=command.attempt)))
        await submitted.open.wait(None)
        assert decode_entries(iter([encode_entries(submitted.open.feed.after((0, 0)))])) is not None
        self.metrics.ended(submitted.open.run, 0.0)
        shown: dict[str, Any] = msgspec.json.decode(RunObjects().json(submitted.open.run, submitted.open, with_input=True))
        return shown

    async def _command(self) -> RunCommand:
        while True:
            data = await self._stream.receive()
            assert data is not None, self._stream.ended
            message = codec.decode(data)
            for one in message.messages if isinstance(message, Batch) else (message,):
                if isinstance(one, RunCommand):
                    return one


@asynccontextmanager
async def joined(tokens: WorkerTokens, **resources: Any) -> AsyncIterator[Peer]:
    said = {"available_functions": ("f",), "max_concurrency": 4, **resources}
    token = tokens.issue(WorkerClaims("w", "ann", "rel"))
    async with Scheduler(tokens) as scheduler, asyncio.timeout(60), scheduler.joined(token, hello(**said)) as stream:
        yield Peer(scheduler, stream)


def result(output: bytes) -> RunResult:
    return RunResult(success=True, output=output)


@pytest.mark.parametrize(
    "resources",
    [
        {"max_concurrency": -1},
        {"max_concurrency": -(2**31)},
        {"function_concurrency": {"f": -5}},
        {"model_tiers": (ModelTier("cozy:a/b:latest", "attic", -5), ModelTier("", "vram", -1))},
        {"load_bytes_per_s": -1, "network_bytes_per_s": -(2**60), "gpu_memory_used_bytes": -1},
    ],
)
@in_a_loop
async def test_runs_go_to_a_worker_with_odd_numbers(tokens: WorkerTokens, resources: dict[str, Any]) -> None:
    async with joined(tokens, **resources) as peer:
        assert (await peer.answered(result(b"\x80")))["status"] == "succeeded"
        (worker,) = peer.scheduler.pool
        assert worker.slots > 0
        assert not any(size < 0 for _, size in worker.view(0.0).tiers.values())
        assert set(worker.models_by_tier()) == {"vram", "host", "disk"}


@in_a_loop
async def test_outputs_that_cannot_be_shown_are_failures_of_their_runs(tokens: WorkerTokens) -> None:
    deep = b"\x91" * 600 + b"\x01"
    async with joined(tokens) as peer:
        for output in (b"\xc1", b"\x93\x01", b"\xdf\xff\xff\xff\xff", b"\x81\xa1a\xa1\xff", b"\x81\xa1a" + deep, b"\x91" * 50_000):
            shown = await peer.answered(result(output))
            assert (shown["status"], shown["error"]["code"]) == ("failed", "bad_output"), (output[:8], shown)
            assert "cannot be shown as JSON" in shown["error"]["detail"]
        for output in (b"", b"\xc0", b"\x81\x01\x02", msgspec.msgpack.encode({"a": float("nan"), "b": b"\xff", "c": [[[1]]] * 300})):
            assert (await peer.answered(result(output)))["status"] == "succeeded", output[:8]


@in_a_loop
async def test_events_that_are_no_json_are_left_out(tokens: WorkerTokens) -> None:
    async with joined(tokens) as peer:
        said: list[Single] = [Event(event_type=kind, payload=payload) for kind in EVENTS for payload in (*BAD_JSON, b"")]
        shown = await peer.answered(*said, result(b"\x80"))
        assert shown["status"] == "succeeded"
        assert shown["timings"].get("model_ms") is None
        right = b'{"gpu_load_ms":5,"models":[{"model_id":"m"}]}'
        shown = await peer.answered(Event(event_type="metrics.run", payload=right), result(b"\x80"))
        assert (shown["timings"]["model_ms"], shown["models"]) == (5, [{"model_id": "m"}])


@in_a_loop
async def test_figures_follow_what_workers_say(tokens: WorkerTokens) -> None:
    tiers = (ModelTier("cozy:a/b:latest", "disk", 5), ModelTier("cozy:a/c:latest", "vram", 3))
    async with joined(tokens, gpu_memory_used_bytes=7, model_tiers=tiers) as peer:
        models = '[{"bytes_downloaded":100},{"bytes_downloaded":null},{},{"bytes_downloaded":-5}]'
        for said in (models, "5", '[{"bytes_downloaded":"much"}]', "[5]", "null"):
            event = Event(event_type="metrics.run", payload=b'{"models":%b}' % said.encode())
            assert (await peer.answered(event, result(b"\x80")))["status"] == "succeeded"
        await peer.answered(RunResult(error_type="resource", code="out_of_memory"))
        text = peer.metrics.text(peer.scheduler.dispatcher, peer.scheduler.pool).decode()
        for figure in (
            "model_download_bytes_total 100",
            'oom_total{outcome="failed"} 1',
            "vram_used_bytes 7",
            "disk_cache_bytes 5",
            'model_bytes{tier="vram"} 3',
            'runs_total{function="ann/e/f",status="succeeded"} 5',
            'runs_total{function="ann/e/f",status="failed"} 1',
        ):
            assert f"gen_orchestrator_{figure}\n" in text, text


@in_a_loop
async def test_receipts_are_what_can_be_whatever_workers_say(tokens: WorkerTokens) -> None:
    async with joined(tokens, gpu_count=1) as peer:
        for said in (
            b'{"gpu_load_ms":-5,"inference_ms":-7,"models":[{"bytes_downloaded":-1,"bytes_loaded":-1,"download_ms":-1}]}',
            b'{"gpu_load_ms":9000000000000000000,"inference_ms":9000000000000000000,"models":[{"bytes_loaded":9000000000000000000}]}',
            b'{"inference_ms":9e300}',
            b'{"inference_ms":"long","models":"many"}',
        ):
            shown = await peer.answered(Event(event_type="task.started"), Event(event_type="metrics.run", payload=said), result(b"\x80"))
            receipt = shown["receipt"]
            assert 0 <= receipt["gpu_seconds"] <= shown["timings"]["total_ms"] / 1000 + 0.01, (said, receipt)
            assert 0 <= receipt["cold_seconds"] <= shown["timings"]["total_ms"] / 1000 + 0.01, (said, receipt)
            assert (receipt["cpu_seconds"], receipt["downloaded_bytes"], receipt["cost"]) == (0, 0, None)
            assert 0 <= receipt["loaded_bytes"] <= 1 << 50
        moved = b'{"models":[{"bytes_downloaded":7,"bytes_loaded":5},{"bytes_loaded":6}]}'
        shown = await peer.answered(Event(event_type="metrics.run", payload=moved), result(b"\x80"))
        assert (shown["receipt"]["downloaded_bytes"], shown["receipt"]["loaded_bytes"]) == (7, 11)
        assert (await peer.answered(RunResult(error_type="fatal")))["receipt"]["gpu_seconds"] == 0, "it did not say that it began"


@in_a_loop
async def test_failures_are_shown_whatever_their_words(tokens: WorkerTokens) -> None:
    async with joined(tokens) as peer:
        for fields in (
            {"error_type": ""},
            {"error_type": "nonsense\n", "code": "\n" * 1000, "safe_message": "x" * 1_000_000, "error_message": "y" * 1_000_000},
            *({"error_type": "validation", "errors_json": text} for text in (b"{", b"\xff", b"[{}]", b'[{"pointer":5}]', DEEP)),
        ):
            shown = await peer.answered(RunResult(**fields))
            assert shown["status"] == "failed", fields
            assert len(msgspec.json.encode(shown)) < 10_000


@in_a_loop
async def test_what_cannot_be_taken_ends_no_stream(tokens: WorkerTokens, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault of ours that one message meets: the worker's other runs do not know of it."""
    async with joined(tokens) as peer:
        dispatcher = peer.scheduler.dispatcher

        def broken(*_: Any) -> None:
            raise RuntimeError("a fault")

        with monkeypatch.context() as patched:
            patched.setattr(dispatcher, "on_event", broken)
            assert (await peer.answered(Event(event_type="mine", payload=b"{}"), result(b"\x80")))["status"] == "succeeded"
        assert "gateway.broken" in peer.scheduler.said.getvalue()


@in_a_loop
async def test_a_run_whose_end_breaks_something_hides_no_other_end(tmp_path: Path) -> None:
    from gen_orchestrator.store.writer import _call

    heard: list[int] = []
    found: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: found.append(context))

    def broken() -> None:
        raise RuntimeError("a fault")

    _call([lambda: heard.append(1), broken, lambda: heard.append(2)])
    assert heard == [1, 2]
    assert isinstance(found[0]["exception"], RuntimeError)
