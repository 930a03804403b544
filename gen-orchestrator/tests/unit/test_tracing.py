"""Spans of a run: one per phase, below the caller's span."""

import pytest

from gen_orchestrator import tracing
from gen_orchestrator.domain.runs import Run, RunError, RunState

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def a_run(**changes: object) -> Run:
    fields: dict[str, object] = {
        "id": "r1", "owner": "ann", "endpoint": "e", "function": "f", "tag": "prod", "release_id": "rel", "payload": b"\x80",
        "created_at": 100.0, "started_at": 101.0, "finished_at": 105.0, "state": RunState.SUCCEEDED, "attempt": 1,
        "metrics": b'{"gpu_load_ms":1000,"inference_ms":2000,"upload_ms":500}', "traceparent": CALLER,
    }  # fmt: skip
    return Run(**{**fields, **changes})  # type: ignore[arg-type]


def test_phases_follow_each_other() -> None:
    assert tracing.phases(a_run()) == [
        ("queue", 100.0, 101.0), ("lease", 101.0, 105.0), ("model", 101.0, 102.0), ("infer", 102.0, 104.0), ("upload", 104.0, 104.5),
    ]  # fmt: skip
    assert tracing.phases(a_run(started_at=0.0, metrics=b"")) == [("queue", 100.0, 105.0)]


def test_spans_hang_below_the_callers() -> None:
    sdk = pytest.importorskip("opentelemetry.sdk.trace")
    export = pytest.importorskip("opentelemetry.sdk.trace.export")
    memory = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter").InMemorySpanExporter()
    provider = sdk.TracerProvider()
    provider.add_span_processor(export.SimpleSpanProcessor(memory))
    tracing.record(a_run(), provider.get_tracer("t"))
    spans = {span.name: span for span in memory.get_finished_spans()}
    assert set(spans) == {"run", "queue", "lease", "model", "infer", "upload"}
    run = spans["run"]
    assert (f"{run.context.trace_id:032x}", f"{run.parent.span_id:016x}") == tuple(CALLER.split("-")[1:3])
    assert all(span.parent.span_id == run.context.span_id for name, span in spans.items() if name != "run")
    assert (run.start_time, run.end_time, run.attributes["gen.function"]) == (100 * 10**9, 105 * 10**9, "ann/e/f:prod")
    memory.clear()
    error = RunError(error_type="fatal", code="fatal", message="no")
    tracing.record(a_run(state=RunState.FAILED, error=error, traceparent="", metrics=b""), provider.get_tracer("t"))
    (failed,) = [span for span in memory.get_finished_spans() if span.name == "run"]
    assert (failed.parent, failed.status.description) == (None, "fatal")


def test_a_missing_exporter_is_said() -> None:
    assert tracing.set_up({}) == ""


def test_without_a_provider_no_span_is_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    trace = pytest.importorskip("opentelemetry.trace")
    sdk = pytest.importorskip("opentelemetry.sdk.trace")
    export = pytest.importorskip("opentelemetry.sdk.trace.export")
    memory = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter").InMemorySpanExporter()
    begun: list[str] = []
    real = trace.get_tracer
    monkeypatch.setattr(trace, "get_tracer", lambda name: begun.append(name) or real(name))
    for none in (trace.ProxyTracerProvider(), trace.NoOpTracerProvider()):
        monkeypatch.setattr(trace, "get_tracer_provider", lambda none=none: none)
        tracing.recorder()(a_run())
    assert not begun
    provider = sdk.TracerProvider()
    provider.add_span_processor(export.SimpleSpanProcessor(memory))
    record = tracing.recorder()
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)  # one that a program sets up after its start
    record(a_run())
    assert begun == [tracing.TRACER]
    assert {span.name for span in memory.get_finished_spans()} == {"run", "queue", "lease", "model", "infer", "upload"}
