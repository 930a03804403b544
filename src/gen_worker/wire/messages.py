"""The messages between worker and scheduler, as Python values. `codec` knows their form on the wire."""

from collections.abc import Mapping
from typing import Literal

import msgspec


class FunctionSchema(msgspec.Struct, frozen=True):
    """One function; its schemas are compact JSON with sorted keys."""

    name: str = ""
    input_schema_json: bytes = b""
    output_schema_json: bytes = b""
    injection_json: bytes = b""
    incremental_output: bool = False
    delta_schema_json: bytes = b""


class ModelTier(msgspec.Struct, frozen=True):
    """Where a model is (`vram`, `host` or `disk`) and how many of its bytes are there."""

    model_id: str = ""
    tier: str = ""
    size_bytes: int = 0


class Resources(msgspec.Struct, frozen=True):
    """What a worker has and serves. Rates in bytes/s, from network to disk and from disk to device; 0 until measured."""

    worker_id: str = ""
    cpu_cores: int = 0
    memory_bytes: int = 0
    gpu_count: int = 0
    gpu_memory_bytes: int = 0
    available_functions: tuple[str, ...] = ()
    vram_models: tuple[str, ...] = ()
    supports_model_loading: bool = False
    release_id: str = ""
    runpod_pod_id: str = ""
    gpu_is_busy: bool = False
    gpu_memory_used_bytes: int = 0
    gpu_name: str = ""
    gpu_driver: str = ""
    gpu_memory_free_bytes: int = 0
    max_concurrency: int = 0
    function_concurrency: Mapping[str, int] = msgspec.field(default_factory=dict)
    cuda_version: str = ""
    torch_version: str = ""
    function_schemas: tuple[FunctionSchema, ...] = ()
    gpu_sm: str = ""
    tensorrt_version: str = ""
    onnxruntime_version: str = ""
    disk_models: tuple[str, ...] = ()
    installed_libs: tuple[str, ...] = ()
    image_digest: str = ""
    git_commit: str = ""
    build_timestamp: int = 0
    model_tiers: tuple[ModelTier, ...] = ()
    network_bytes_per_s: int = 0
    load_bytes_per_s: int = 0


class ActiveRun(msgspec.Struct, frozen=True):
    """A run that a worker has, and its attempt number."""

    run_id: str = ""
    attempt: int = 0


class Registration(msgspec.Struct, frozen=True):
    """The first message of every stream, and the heartbeat.

    `instance_id` identifies one worker process across its connections. `active_run_ids` are its runs that are not over
    for the scheduler: still running, or ended with a result that is not acknowledged.
    """

    resources: Resources = Resources()
    is_heartbeat: bool = False
    protocol_major: int = 0
    protocol_minor: int = 0
    extensions: tuple[str, ...] = ()
    instance_id: str = ""
    active_run_ids: tuple[str, ...] = ()
    active_runs: tuple[ActiveRun, ...] = ()

    def attempts(self) -> dict[str, int]:
        """The worker's runs and their attempt numbers; 0 when it does not say."""
        return dict.fromkeys(self.active_run_ids, 0) | {run.run_id: run.attempt for run in self.active_runs}


class RunResult(msgspec.Struct, frozen=True):
    """The end of a run. `output` is msgpack. `safe_message` may be shown to the caller, `error_message` may not.

    `code` is the error's specific code, `errors_json` a JSON array of `FieldError`. Both are empty from peers that do
    not know them.
    """

    run_id: str = ""
    success: bool = False
    output: bytes = b""
    error_message: str = ""
    error_type: str = ""
    retryable: bool = False
    safe_message: str = ""
    code: str = ""
    errors_json: bytes = b""
    attempt: int = 0


class LoadModelResult(msgspec.Struct, frozen=True):
    model_id: str = ""
    success: bool = False
    error_message: str = ""


class UnloadModelResult(msgspec.Struct, frozen=True):
    model_id: str = ""
    success: bool = False
    error_message: str = ""


class Event(msgspec.Struct, frozen=True):
    """An event; `payload` is a JSON object. Without a `run_id` it concerns the worker itself."""

    run_id: str = ""
    event_type: str = ""
    payload: bytes = b""
    attempt: int = 0


class UrlRefreshRequest(msgspec.Struct, frozen=True):
    """The worker's presigned URLs of this model have expired."""

    model_id: str = ""


class ResolvedFile(msgspec.Struct, frozen=True):
    path: str = ""
    size_bytes: int = 0
    blake3: str = ""
    url: str = ""


class ResolvedModel(msgspec.Struct, frozen=True):
    """The files of a model snapshot with presigned URLs."""

    snapshot_digest: str = ""
    files: tuple[ResolvedFile, ...] = ()


class UrlRefreshResponse(msgspec.Struct, frozen=True):
    model_id: str = ""
    resolved: ResolvedModel = ResolvedModel()


class RunCommand(msgspec.Struct, frozen=True):
    """Run a function. `payload` is a msgpack map. `timeout_ms` 0 means no limit. `traceparent` is W3C Trace Context;
    empty without one.
    """

    run_id: str = ""
    function: str = ""
    payload: bytes = b""
    required_models: tuple[str, ...] = ()
    timeout_ms: int = 0
    owner: str = ""
    invoker_id: str = ""
    file_base_url: str = ""
    file_token: str = ""
    resolved_models: Mapping[str, ResolvedModel] = msgspec.field(default_factory=dict)
    traceparent: str = ""
    attempt: int = 0


class LoadModel(msgspec.Struct, frozen=True):
    model_id: str = ""


class UnloadModel(msgspec.Struct, frozen=True):
    model_id: str = ""


class InterruptRun(msgspec.Struct, frozen=True):
    run_id: str = ""


class ModelRefSpec(msgspec.Struct, frozen=True):
    ref: str = ""
    dtypes: tuple[str, ...] = ()


class ModelsByKey(msgspec.Struct, frozen=True):
    models: Mapping[str, ModelRefSpec] = msgspec.field(default_factory=dict)


class ReleaseConfig(msgspec.Struct, frozen=True):
    """The models that the functions of this release may use, and the models to fetch now."""

    supported_refs: tuple[str, ...] = ()
    ref_by_key: Mapping[str, str] = msgspec.field(default_factory=dict)
    resolved_models: Mapping[str, ResolvedModel] = msgspec.field(default_factory=dict)
    required_refs: tuple[str, ...] = ()
    models_by_function: Mapping[str, ModelsByKey] = msgspec.field(default_factory=dict)


class OpenRealtime(msgspec.Struct, frozen=True):
    """Start a websocket handler for a session."""

    session_id: str = ""
    function: str = ""
    required_models: tuple[str, ...] = ()
    owner: str = ""
    invoker_id: str = ""
    timeout_ms: int = 0
    file_base_url: str = ""
    file_token: str = ""


class RealtimeFrame(msgspec.Struct, frozen=True):
    session_id: str = ""
    data: bytes = b""
    is_text: bool = False


class CloseRealtime(msgspec.Struct, frozen=True):
    """A session ends. The worker's message says why the handler failed, in the same fields as a `RunResult`; they are
    empty if it did not fail.
    """

    session_id: str = ""
    reason: str = ""
    error_type: str = ""
    code: str = ""
    safe_message: str = ""
    error_message: str = ""


class RealtimeCredit(msgspec.Struct, frozen=True):
    """The sender can take `frames` more frames of the session."""

    session_id: str = ""
    frames: int = 0


class Hello(msgspec.Struct, frozen=True):
    """The scheduler supports these extensions, and has all messages of this worker instance up to `last_seq`."""

    extensions: tuple[str, ...] = ()
    last_seq: int = 0


class Ack(msgspec.Struct, frozen=True):
    """All numbered messages up to `seq` have arrived."""

    seq: int = 0


class Unknown(msgspec.Struct, frozen=True):
    """A message type that this version does not know."""


Single = (
    Registration
    | RunResult
    | LoadModelResult
    | UnloadModelResult
    | Event
    | UrlRefreshRequest
    | UrlRefreshResponse
    | RunCommand
    | LoadModel
    | UnloadModel
    | InterruptRun
    | ReleaseConfig
    | OpenRealtime
    | RealtimeFrame
    | CloseRealtime
    | RealtimeCredit
    | Hello
    | Ack
    | Unknown
)


class Batch(msgspec.Struct, frozen=True):
    """Several messages in one. `first_seq` is the number of the first (0: they are not numbered); `ack_seq` is as in `Ack`."""

    messages: tuple[Single, ...] = ()
    first_seq: int = 0
    ack_seq: int = 0


Message = Single | Batch

Extension = Literal["batch", "realtime_credit", "realtime_window", "attempt", "few_events"]
BATCH: Extension = "batch"  # Batch, Hello, Ack: numbered messages that survive a lost stream
REALTIME_CREDIT: Extension = "realtime_credit"
REALTIME_WINDOW: Extension = "realtime_window"  # frames need credits in both directions, also by bytes; InterruptRun cancels a session
ATTEMPT: Extension = "attempt"  # results and events carry their attempt number
EXTENSIONS: tuple[Extension, ...] = (BATCH, REALTIME_CREDIT, REALTIME_WINDOW, ATTEMPT)  # every scheduler of ours has these
FEW_EVENTS: Extension = "few_events"  # for a scheduler that does not need the events that every run has
WORKER_EXTENSIONS: tuple[Extension, ...] = (*EXTENSIONS, FEW_EVENTS)


# Limit for the runs in one registration: running ones, and those with an unacknowledged result. A worker with more
# could not register again after a lost connection, so a worker takes no more than `MAX_RUNS` at once, besides what
# `outbox.MAX_UNCONFIRMED` allows.
MAX_ACTIVE_RUNS = 100_000
MAX_RUNS = 50_000


def size_of(message: Single) -> int:
    """The approximate size of a message in bytes, for limits."""
    kind = type(message)
    if kind is Event or kind is RunCommand:
        return 96 + len(message.payload)  # type: ignore[union-attr]
    if kind is RunResult:
        return 96 + len(message.output)  # type: ignore[union-attr]
    return 96 + len(message.data) if isinstance(message, RealtimeFrame) else 256
