"""A run in every answer of the control plane: HTTP bodies, the last event of a stream, lists, webhooks."""

from typing import Any, Literal

import msgspec

from gen_worker.contract.problem import Problem

RunStatus = Literal["queued", "starting", "running", "succeeded", "failed", "canceled", "expired"]
TERMINAL: frozenset[str] = frozenset({"succeeded", "failed", "canceled", "expired"})


class InvokeOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What a caller may set for a run besides its payload. Times in seconds; 0: not set."""

    timeout_s: float = 0.0
    start_timeout_s: float = 0.0
    priority: str = "normal"
    webhook: str = ""
    webhook_events: tuple[str, ...] = ()


class Usage(msgspec.Struct, frozen=True):
    """Tokens that a run read and wrote, as reported by its function (`ctx.report_usage`)."""

    input_tokens: int = 0
    output_tokens: int = 0


class RunTimings(msgspec.Struct, frozen=True, omit_defaults=True):
    """Milliseconds; unknown ones are left out."""

    queued_ms: int | None = None
    model_ms: int | None = None
    inference_ms: int | None = None
    upload_ms: int | None = None
    total_ms: int | None = None


class RunReceipt(msgspec.Struct, frozen=True):
    """What a finished run used, over all attempts: seconds on a GPU, seconds on a worker without one, seconds of
    waiting for a worker to start and for models; the waiting share of all its time; bytes of models; the cost in the
    platform's currency, None when there is no price.
    """

    gpu_seconds: float
    cpu_seconds: float
    cold_seconds: float
    cold_share: float
    downloaded_bytes: int
    loaded_bytes: int
    attempts: int
    cost: float | None


# Of one message of a session, either way: with its envelope it fits into a message of 16 MiB to a worker.
MAX_MESSAGE_BYTES = (16 << 20) - (32 << 10)


class RunSession(msgspec.Struct, frozen=True):
    """Facts about a realtime session: why it ended (empty while it is open), and the frames and bytes from the client
    (`in`) and to it (`out`).
    """

    reason: str = ""
    frames_in: int = 0
    frames_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0


class RunObject(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One run. `status` is final when it is in `TERMINAL`. Times are RFC 3339 in UTC.

    `routing` says why this worker was chosen and which others were considered. `files` are the files in the output,
    each with its URL. `outputs` are the items of a function that streams, as far as they have at most 8 MiB together; its
    `output` is null. `warnings` are the parts of the payload that the function ignored. `stuck` says where a run hangs
    that takes longer than expected. `session` has the traffic of a realtime session; other runs have none.
    """

    id: str
    status: RunStatus
    owner: str
    endpoint: str
    function: str
    tag: str
    release_id: str
    attempt: int
    created_at: str
    events_url: str
    output: Any = None
    outputs: Any = None
    files: Any = None
    error: Problem | None = None
    worker_id: str | None = None
    progress: Any = None
    input: Any = None
    models: Any = None
    timings: RunTimings | None = None
    usage: Usage | None = None
    receipt: RunReceipt | None = None
    routing: Any = None
    parent_id: str | None = None
    invoker_id: str | None = None
    warnings: Any = None
    stuck: Any = None
    session: RunSession | None = None
    started_at: str | None = None
    finished_at: str | None = None


class RunPage(msgspec.Struct, frozen=True):
    """Runs, newest first. `next_cursor` requests the next page; null on the last page."""

    data: list[RunObject]
    next_cursor: str | None = None
