"""A run as every answer of the control plane shows it: HTTP bodies, the last event of a stream, lists, webhooks."""

from typing import Any, Literal

import msgspec

from gen_worker.contract.problem import Problem

RunStatus = Literal["queued", "starting", "running", "succeeded", "failed", "canceled", "expired"]
TERMINAL: frozenset[str] = frozenset({"succeeded", "failed", "canceled", "expired"})


class InvokeOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What a caller may ask of a run beside its payload. Times in seconds, 0: none of its own."""

    timeout_s: float = 0.0
    start_timeout_s: float = 0.0
    priority: str = "normal"
    webhook: str = ""
    webhook_events: tuple[str, ...] = ()


class Usage(msgspec.Struct, frozen=True):
    """Tokens that a run read and wrote, as its function reported them (`ctx.report_usage`)."""

    input_tokens: int = 0
    output_tokens: int = 0


class RunTimings(msgspec.Struct, frozen=True, omit_defaults=True):
    """Milliseconds; what is not known is left out."""

    queued_ms: int | None = None
    model_ms: int | None = None
    inference_ms: int | None = None
    upload_ms: int | None = None
    total_ms: int | None = None


class RunReceipt(msgspec.Struct, frozen=True):
    """What a finished run has used, over all attempts: seconds on a GPU, on a worker without one, and of waiting for a worker to start
    and for models; the share of those in all its time; bytes of models; the cost in the platform's currency, None where it has no
    price."""

    gpu_seconds: float
    cpu_seconds: float
    cold_seconds: float
    cold_share: float
    downloaded_bytes: int
    loaded_bytes: int
    attempts: int
    cost: float | None


class RunObject(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One run. `status` is terminal in `TERMINAL`, and never changes after that. Times are RFC 3339 in UTC.

    `routing` says why this worker was chosen, and which others were considered; `files` are those in the output,
    each with the URL that it is read at; `warnings` what of the payload the function left out;
    `stuck` where a run hangs that takes longer than expected.
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
    started_at: str | None = None
    finished_at: str | None = None


class RunPage(msgspec.Struct, frozen=True):
    """Runs, newest first. `next_cursor` asks for the next page; null on the last one."""

    data: list[RunObject]
    next_cursor: str | None = None
