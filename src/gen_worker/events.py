"""What a run says while it works: one value an event, its type as on the wire, its payload as JSON."""

from typing import Any, Final, Literal

import msgspec

RECEIVED: Final = "task.received"
STARTED: Final = "task.started"
COMPLETED: Final = "task.completed"
FAILED: Final = "task.failed"
RESOLVE_STARTED: Final = "task.model_resolve.started"
RESOLVE_COMPLETED: Final = "task.model_resolve.completed"
RESOLVE_FAILED: Final = "task.model_resolve.failed"
LOAD_STARTED: Final = "task.model_load.started"
LOAD_COMPLETED: Final = "task.model_load.completed"
LOAD_FAILED: Final = "task.model_load.failed"
INFERENCE_STARTED: Final = "task.inference.started"
INFERENCE_COMPLETED: Final = "task.inference.completed"
INFERENCE_FAILED: Final = "task.inference.failed"
OUTPUT_DELTA: Final = "output.delta"
OUTPUT_COMPLETED: Final = "output.completed"
OUTPUT_ERROR: Final = "output.error"
PROGRESS: Final = "job.progress"
LOG: Final = "job.log"
METRICS_RUN: Final = "metrics.run"

StreamName = Literal["status", "progress", "output", "log", "metric", "error", "custom"]
_STREAM_NAMES: dict[str, StreamName] = {
    OUTPUT_DELTA: "output",
    PROGRESS: "progress",
    LOG: "log",
    FAILED: "error",
    OUTPUT_ERROR: "error",
}


class RunEvent(msgspec.Struct, frozen=True):
    """One event of a run. `payload` is anything that encodes to a JSON object, or JSON already (`msgspec.Raw`)."""

    event_type: str
    payload: Any


def stream_name(event_type: str) -> StreamName:
    """The name under which an event stands in an event stream."""
    found = _STREAM_NAMES.get(event_type)
    if found is not None:
        return found
    if event_type.startswith("metrics."):
        return "metric"
    if event_type.startswith(("task.", "output.")):
        return "status"
    return "custom"


class Received(msgspec.Struct, frozen=True):
    function_name: str
    required_variant_refs_count: int
    input_bytes: int


class Started(msgspec.Struct, frozen=True):
    function_name: str
    required_variant_refs: tuple[str, ...]


class Completed(msgspec.Struct, frozen=True):
    function_name: str
    duration_ms: int


class Failed(msgspec.Struct, frozen=True):
    function_name: str
    error_type: str
    retryable: bool
    safe_message: str


class InferenceStarted(msgspec.Struct, frozen=True):
    function_name: str
    output_mode: str


class InferenceCompleted(msgspec.Struct, frozen=True):
    function_name: str
    output_mode: str
    duration_ms: int


class InferenceFailed(msgspec.Struct, frozen=True):
    function_name: str
    output_mode: str
    error_type: str
    duration_ms: int


class OutputFailed(msgspec.Struct, frozen=True):
    error_type: str
    message: str


class ModelStep(msgspec.Struct, frozen=True, omit_defaults=True):
    """A model being found (resolve) or made ready (load) for one parameter of a run."""

    function_name: str
    param_name: str
    model_key: str | None = None
    model_id: str | None = None
    duration_ms: int | None = None
    error_type: str | None = None


class RunModel(msgspec.Struct, frozen=True):
    model_id: str
    cache_state: str


class RunMetrics(msgspec.Struct, frozen=True, omit_defaults=True):
    """Schema 1 of `metrics.run`: what is not known is left out."""

    schema_version: int
    function_name: str
    cache_state: str | None = None
    models: tuple[RunModel, ...] = ()
    gpu_load_ms: int | None = None
    inference_ms: int | None = None
    upload_ms: int | None = None
    steps: int | None = None
    width: int | None = None
    height: int | None = None
    guidance: float | None = None
    iters_per_s: float | None = None
