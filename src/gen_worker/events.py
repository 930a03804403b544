"""What a run reports while it works: a value for each event, with its wire type, and its payload as JSON.

`gc=False`: every run makes dozens of events, and they contain no cycles, so the garbage collector need not walk them.
"""

from typing import Any, Final, Literal

import msgspec

from gen_worker.errors import FieldError

RECEIVED: Final = "task.received"
STARTED: Final = "task.started"
COMPLETED: Final = "task.completed"
FAILED: Final = "task.failed"
RESOLVE_STARTED: Final = "task.model_resolve.started"
RESOLVE_COMPLETED: Final = "task.model_resolve.completed"
RESOLVE_FAILED: Final = "task.model_resolve.failed"
MODEL_PROGRESS: Final = "task.model.progress"
LOAD_STARTED: Final = "task.model_load.started"
LOAD_COMPLETED: Final = "task.model_load.completed"
LOAD_FAILED: Final = "task.model_load.failed"
INFERENCE_STARTED: Final = "task.inference.started"
INFERENCE_COMPLETED: Final = "task.inference.completed"
INFERENCE_FAILED: Final = "task.inference.failed"
REJECTED: Final = "task.rejected"
WARNING: Final = "task.warning"
OUTPUT_DELTA: Final = "output.delta"
OUTPUT_COMPLETED: Final = "output.completed"
OUTPUT_ERROR: Final = "output.error"
PROGRESS: Final = "job.progress"
LOG: Final = "job.log"
METRICS_RUN: Final = "metrics.run"
COMPUTE_STARTED: Final = "metrics.compute.started"
COMPUTE_COMPLETED: Final = "metrics.compute.completed"
METRICS_FETCH: Final = "metrics.fetch"
METRICS_GPU_LOAD: Final = "metrics.gpu_load"
METRICS_INFERENCE: Final = "metrics.inference"
RESOLVE_STUCK: Final = "task.model_resolve.stuck"
LOAD_STUCK: Final = "task.model_load.stuck"
INFERENCE_STUCK: Final = "task.inference.stuck"
STARTUP_PHASE: Final = "worker.startup.phase"
WORKER_FATAL: Final = "worker.fatal"
STARTUP_TIMEOUT: Final = "worker.startup_timeout_unregistered"
EVENTS_SHED: Final = "worker.events_shed"
RUN_LEFT: Final = "worker.run_left"  # authors' code still runs 10 s after its run was over; ours, not part of the published protocol
# Part of a run's output, or its end: never shed.
OUTPUT_EVENTS: Final = frozenset({OUTPUT_DELTA, OUTPUT_COMPLETED, OUTPUT_ERROR})
# Every run has these: an author's event with such a name would look like the worker's own.
RESERVED: Final = OUTPUT_EVENTS | {
    RECEIVED,
    REJECTED,
    WARNING,
    STARTED,
    COMPLETED,
    FAILED,
    INFERENCE_STARTED,
    INFERENCE_COMPLETED,
    INFERENCE_FAILED,
    COMPUTE_STARTED,
    COMPUTE_COMPLETED,
    METRICS_RUN,
}

StreamName = Literal["status", "progress", "output", "log", "metric", "error", "custom"]
_STREAM_NAMES: dict[str, StreamName] = {
    OUTPUT_DELTA: "output",
    PROGRESS: "progress",
    LOG: "log",
    FAILED: "error",  # one failure, one `error`: the accompanying `output.error` becomes a status
}
# Steps and figures of every run: streamed only on request (`?events=all`).
MACHINERY: Final = frozenset(
    {RECEIVED, STARTED, COMPLETED, INFERENCE_STARTED, INFERENCE_COMPLETED, INFERENCE_FAILED, OUTPUT_COMPLETED, OUTPUT_ERROR}
)

# Steps of every run that its result reports as well. They are not sent to a scheduler with the extension `few_events`:
# they are two thirds of what a quick run has to say.
TOLD_BY_THE_RESULT: Final = frozenset({RECEIVED, COMPLETED, INFERENCE_COMPLETED, COMPUTE_STARTED, COMPUTE_COMPLETED, METRICS_INFERENCE})


class RunEvent(msgspec.Struct, frozen=True, gc=False):
    """One event of a run. `payload` encodes to a JSON object, or is JSON already (`msgspec.Raw`)."""

    event_type: str
    payload: Any


def is_machinery(event_type: str) -> bool:
    """Whether an event reports our internal steps, not the function's work or something that a caller waits for."""
    return event_type in MACHINERY or event_type.startswith("metrics.")


def stream_name(event_type: str) -> StreamName:
    """An event's name in an event stream."""
    found = _STREAM_NAMES.get(event_type)
    if found is not None:
        return found
    if event_type.startswith("metrics."):
        return "metric"
    if event_type.startswith(("task.", "output.")):
        return "status"
    return "custom"


class Received(msgspec.Struct, frozen=True, gc=False):
    function_name: str
    required_variant_refs_count: int
    input_bytes: int


class Rejected(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """Why a run was not started. `input_bytes`: the payload's size, if that was the reason."""

    reason: str
    function_name: str
    input_bytes: int | None = None


class At(msgspec.Struct, frozen=True, gc=False):
    """A time, RFC 3339 in UTC."""

    at: str


class Milliseconds(msgspec.Struct, frozen=True, gc=False):
    ms: int


class Stuck(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """A phase of a run that has taken longer than expected, with the Python stacks of the threads that work on it."""

    phase: str
    warn_after_s: float
    elapsed_ms: int
    function_name: str
    param_name: str | None = None
    model_id: str | None = None
    output_mode: str | None = None
    stacks: tuple[str, ...] = ()


class Started(msgspec.Struct, frozen=True, gc=False):
    function_name: str
    required_variant_refs: tuple[str, ...]


class Warned(msgspec.Struct, frozen=True):
    """Parts of a payload that were ignored, and the fields that may have been meant. The run goes on without them."""

    function_name: str
    warnings: tuple[FieldError, ...]


class Completed(msgspec.Struct, frozen=True, gc=False):
    function_name: str
    duration_ms: int


class Failed(msgspec.Struct, frozen=True, gc=False):
    function_name: str
    error_type: str
    retryable: bool
    safe_message: str


class InferenceStarted(msgspec.Struct, frozen=True, gc=False):
    function_name: str
    output_mode: str


class InferenceCompleted(msgspec.Struct, frozen=True, gc=False):
    function_name: str
    output_mode: str
    duration_ms: int


class InferenceFailed(msgspec.Struct, frozen=True, gc=False):
    function_name: str
    output_mode: str
    error_type: str
    duration_ms: int


class OutputFailed(msgspec.Struct, frozen=True, gc=False):
    error_type: str
    message: str


class ModelStep(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """A model being found (resolve) or prepared (load) for one parameter of a run."""

    function_name: str
    param_name: str
    model_key: str | None = None
    model_id: str | None = None
    duration_ms: int | None = None
    error_type: str | None = None


# Where a model was when its run needed it: its files came over the network, they were on disk, or it was on the device.
CacheState = Literal["cold_remote", "warm_disk", "hot_vram"]


class RunModel(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """A model of a run: where it was, and the cost of fetching and loading it. Unknown values are left out."""

    model_id: str
    cache_state: CacheState
    snapshot_digest: str | None = None
    bytes_downloaded: int | None = None
    download_ms: int | None = None
    disk_fstype: str | None = None
    disk_backend: str | None = None
    localized: bool | None = None
    bytes_loaded: int | None = None


class RunMetrics(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """Schema 1 of `metrics.run`; times in ms. Unknown values are left out."""

    schema_version: int
    function_name: str
    cache_state: CacheState | None = None
    models: tuple[RunModel, ...] = ()
    gpu_load_ms: int | None = None
    inference_ms: int | None = None
    upload_ms: int | None = None
    steps: int | None = None
    width: int | None = None
    height: int | None = None
    guidance: float | None = None
    iters_per_s: float | None = None
    peak_ram_bytes: int | None = None
    peak_vram_bytes: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
