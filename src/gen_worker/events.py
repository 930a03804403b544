"""What a run says while it works: one value an event, its type as on the wire, its payload as JSON.

`gc=False`: events are made by the dozen for every run and hold no cycles, so the garbage collector does not walk them.
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
RUN_LEFT: Final = "worker.run_left"  # authors' code goes on 10 s after its run was over; ours, not of the published protocol
# Part of a run's output, or its end: never shed.
OUTPUT_EVENTS: Final = frozenset({OUTPUT_DELTA, OUTPUT_COMPLETED, OUTPUT_ERROR})
# Of these every run has what it has: an author's event of that name would pass for the worker's word.
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
    FAILED: "error",  # one failure, one `error`: `output.error`, which comes with it, is a status
}
# Steps that every run takes, and its figures: in a stream only where they are asked for (`?events=all`).
MACHINERY: Final = frozenset(
    {RECEIVED, STARTED, COMPLETED, INFERENCE_STARTED, INFERENCE_COMPLETED, INFERENCE_FAILED, OUTPUT_COMPLETED, OUTPUT_ERROR}
)

# Steps that every run takes and that its result tells as well. A scheduler that says so is not sent them (extension `few_events`): they are
# two thirds of what a quick run has to say.
TOLD_BY_THE_RESULT: Final = frozenset({RECEIVED, COMPLETED, INFERENCE_COMPLETED, COMPUTE_STARTED, COMPUTE_COMPLETED, METRICS_INFERENCE})


class RunEvent(msgspec.Struct, frozen=True, gc=False):
    """One event of a run. `payload` is anything that encodes to a JSON object, or JSON already (`msgspec.Raw`)."""

    event_type: str
    payload: Any


def is_machinery(event_type: str) -> bool:
    """Whether an event tells of our own steps rather than of the function's work or of something that a caller waits for."""
    return event_type in MACHINERY or event_type.startswith("metrics.")


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


class Received(msgspec.Struct, frozen=True, gc=False):
    function_name: str
    required_variant_refs_count: int
    input_bytes: int


class Rejected(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """Why a run was not started. `input_bytes` where its size was the reason."""

    reason: str
    function_name: str
    input_bytes: int | None = None


class At(msgspec.Struct, frozen=True, gc=False):
    """A moment, RFC 3339 in UTC."""

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
    """What of a payload was left out, and what may have been meant. The run goes on without it."""

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
    """A model being found (resolve) or made ready (load) for one parameter of a run."""

    function_name: str
    param_name: str
    model_key: str | None = None
    model_id: str | None = None
    duration_ms: int | None = None
    error_type: str | None = None


# Where a model was when its run wanted it: its files came over the network, they were here, or it was on the device.
CacheState = Literal["cold_remote", "warm_disk", "hot_vram"]


class RunModel(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """A model of a run: where it was, and what bringing it took. What is not known is left out."""

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
    """Schema 1 of `metrics.run`, times in ms: what is not known is left out."""

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
