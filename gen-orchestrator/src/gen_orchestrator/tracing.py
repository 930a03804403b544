"""OpenTelemetry spans of runs (extra `otel`): one for the run, below it one a phase, as children of the trace that the caller sent.

A run's spans are made when it ends, from its stored times: a restart in between loses none, and they cost nothing while the run works.
Without the extra, or without an exporter, nothing happens.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from gen_orchestrator.domain.runs import Run, RunState

TRACER = "gen_orchestrator"
ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
_NS = 1_000_000_000
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?")


class _Times(msgspec.Struct, frozen=True):
    """The part of a worker's `metrics.run` that is read here, in milliseconds."""

    gpu_load_ms: int | None = None
    inference_ms: int | None = None
    upload_ms: int | None = None


def set_up(env: Mapping[str, str]) -> str:
    """Export spans to `OTEL_EXPORTER_OTLP_ENDPOINT`. Returns why that is impossible when the extra is missing. Call it
    once, at a program's start.
    """
    if not env.get(ENDPOINT):
        return ""
    try:
        from opentelemetry import trace
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        return f"{ENDPOINT} is set, but spans cannot be sent: pip install 'gen-orchestrator[otel]'"
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    return ""


def recorder() -> Callable[[Run], None]:
    """The function to call with each finished run."""
    try:
        from opentelemetry import trace
    except ImportError:
        return lambda run: None

    def recorded(run: Run) -> None:
        # Without a provider, creating and dropping spans takes a tenth of the time of an echo run.
        if not isinstance(trace.get_tracer_provider(), (trace.ProxyTracerProvider, trace.NoOpTracerProvider)):
            record(run, trace.get_tracer(TRACER))

    return recorded


def record(run: Run, tracer: Any) -> None:
    """Create the spans of a finished run."""
    from opentelemetry import trace
    from opentelemetry.trace import Status, StatusCode

    attributes = {
        "gen.run_id": run.id,
        "gen.function": f"{run.owner}/{run.endpoint}/{run.function}:{run.tag}",
        "gen.release_id": run.release_id,
        "gen.status": str(run.state),
        "gen.attempt": run.attempt,
        "gen.worker_id": run.worker_id,
    }
    span = tracer.start_span("run", context=_caller(run.traceparent), start_time=_ns(run.created_at), attributes=attributes)
    if run.state is not RunState.SUCCEEDED:
        span.set_status(Status(StatusCode.ERROR, run.error.code if run.error is not None else str(run.state)))
    below = trace.set_span_in_context(span)
    for name, start, end in phases(run):
        tracer.start_span(name, context=below, start_time=_ns(start), attributes={"gen.run_id": run.id}).end(_ns(end))
    span.end(_ns(run.finished_at))


def phases(run: Run) -> list[tuple[str, float, float]]:
    """Name, begin and end of each known phase. On the worker they follow each other: models, the function, its files."""
    found = [("queue", run.created_at, run.started_at or run.finished_at)]
    if not run.started_at:
        return found
    found.append(("lease", run.started_at, run.finished_at))
    times = msgspec.json.decode(run.metrics, type=_Times) if run.metrics else _Times()
    at = run.started_at
    for name, took_ms in (("model", times.gpu_load_ms), ("infer", times.inference_ms), ("upload", times.upload_ms)):
        if took_ms is not None:
            end = min(at + took_ms / 1000, run.finished_at)
            found.append((name, at, end))
            at = end
    return found


def _caller(traceparent: str) -> Any:
    from opentelemetry import trace
    from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

    read = _TRACEPARENT.fullmatch(traceparent)
    if read is None:
        return None
    context = SpanContext(int(read[1], 16), int(read[2], 16), is_remote=True, trace_flags=TraceFlags(int(read[3], 16)))
    return trace.set_span_in_context(NonRecordingSpan(context))


def _ns(unix_s: float) -> int:
    return round(unix_s * _NS)
