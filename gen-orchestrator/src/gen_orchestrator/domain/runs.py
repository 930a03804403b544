"""A run of the control plane: its states, and the moves between them.

                     lease                      finish
    queued ------------------> leased ------------------------> succeeded | failed | canceled | expired
      ^  |                       |                                     ^
      |  |   requeue (the worker was lost, refused, or failed and may try again)
      |  +<----------------------+                                     |
      +--- finish without a worker: canceled, expired, refused --------+

Every move names its attempt. A move for another attempt, or from a final state, does not happen: it returns None, and the caller sees the
run's present state. So a final state never changes, and the recorded result belongs to the recorded attempt. `attempt` grows with each
lease and never decreases; `executions` counts the attempts that a worker really started.

The stores do the same moves as compare-and-set statements. The contract suite holds them to these functions.
"""

from enum import StrEnum
from typing import Final

import msgspec

from gen_orchestrator.domain.receipts import NOTHING, Usage
from gen_worker.errors import FieldError

MAX_ATTEMPTS: Final = 5
PRIORITIES: Final = ("high", "normal", "low")


class RunState(StrEnum):
    """The state in the store. The public word for `leased` is `starting` or `running`, as the worker reports."""

    QUEUED = "queued"
    LEASED = "leased"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"
    EXPIRED = "expired"


FINAL_STATES: Final = frozenset({RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELED, RunState.EXPIRED})


class RunError(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why a run did not succeed. `message` may be shown to the caller, `detail` is for operators; `errors` point into the payload."""

    error_type: str
    code: str
    message: str
    retryable: bool = False
    detail: str = ""
    errors: tuple[FieldError, ...] = ()


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """Everything durable about one run. Times are unix seconds; 0 means not yet.

    `lost_workers` workers were lost while they ran it; `suspicion` that it kills them, see `losses`. `payload` and
    `output` are msgpack. `not_before` delays a retry; `expires_at` is when a run that has not started is given up.
    `routing` is JSON: why the current worker was chosen, and which others were considered. `fingerprint` is a digest of
    the request behind `idempotency_key`. `webhook` is the JSON of a `webhooks.Target`, `warnings` the JSON of the parts
    of the payload that the function ignored. `traceparent` is the caller's W3C Trace Context. `leased_at` is when the
    last attempt was given to its worker. The fields from `gpu_ms` on are what all attempts used (`receipts.Usage`).
    """

    id: str
    owner: str
    endpoint: str
    function: str
    tag: str
    release_id: str
    payload: bytes
    created_at: float
    state: RunState = RunState.QUEUED
    attempt: int = 0
    executions: int = 0
    lost_workers: int = 0
    suspicion: int = 0
    max_attempts: int = MAX_ATTEMPTS
    priority: str = "normal"
    timeout_ms: int = 0
    expires_at: float = 0.0
    not_before: float = 0.0
    worker_id: str = ""
    cancel_requested: bool = False
    invoker_id: str = ""
    parent_id: str = ""
    idempotency_key: str = ""
    fingerprint: str = ""
    webhook: bytes = b""
    started_at: float = 0.0
    finished_at: float = 0.0
    routing: bytes = b""
    output: bytes = b""
    error: RunError | None = None
    metrics: bytes = b""
    warnings: bytes = b""
    traceparent: str = ""
    leased_at: float = 0.0
    gpu_ms: int = 0
    cpu_ms: int = 0
    cold_ms: int = 0
    downloaded_bytes: int = 0
    loaded_bytes: int = 0
    cost_nanos: int = 0

    @property
    def used(self) -> Usage:
        """What all attempts have used, as far as it is stored."""
        return Usage(self.gpu_ms, self.cpu_ms, self.cold_ms, self.downloaded_bytes, self.loaded_bytes, self.cost_nanos)

    @property
    def is_final(self) -> bool:
        return self.state in FINAL_STATES


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """How a run ends. `metrics` is the worker's JSON object of times and sizes, `warnings` a JSON array of
    `FieldError`; either may be empty. `used` is what the last attempt used.
    """

    state: RunState
    at: float
    output: bytes = b""
    error: RunError | None = None
    metrics: bytes = b""
    warnings: bytes = b""
    used: Usage = NOTHING


CANCELED_ERROR: Final = RunError(error_type="canceled", code="canceled", message="canceled")


def lease(run: Run, *, attempt: int, worker_id: str, at: float, routing: bytes) -> Run | None:
    """Give a queued run to a worker. `attempt` must be the next number; otherwise the caller's picture of the run is outdated."""
    if run.state is not RunState.QUEUED or attempt != run.attempt + 1 or run.cancel_requested:
        return None
    return msgspec.structs.replace(
        run, state=RunState.LEASED, attempt=attempt, worker_id=worker_id, started_at=run.started_at or at, leased_at=at, routing=routing
    )


def requeue(
    run: Run, *, attempt: int, not_before: float, executed: bool, lost: bool, suspicion: int = 0, used: Usage = NOTHING
) -> Run | None:
    """Take a run back from its worker. `executed`: the worker had begun it; `lost`: the worker vanished; `suspicion`
    and `used` are added.
    """
    if run.state is not RunState.LEASED or attempt != run.attempt:
        return None
    return msgspec.structs.replace(
        run,
        state=RunState.QUEUED,
        worker_id="",
        not_before=not_before,
        executions=run.executions + executed,
        lost_workers=run.lost_workers + lost,
        suspicion=run.suspicion + suspicion,
        **_with(run, used),
    )


def finish(run: Run, *, attempt: int, ending: Ending) -> Run | None:
    """End a run: by its worker's result for the current attempt, or without a worker while it is queued.

    A cancel that was recorded first wins over a later success, because the caller was already told.
    """
    if run.is_final or attempt != run.attempt:
        return None
    if run.cancel_requested and ending.state is not RunState.CANCELED:
        ending = msgspec.structs.replace(ending, state=RunState.CANCELED, error=CANCELED_ERROR, output=b"")
    return msgspec.structs.replace(
        run,
        state=ending.state,
        finished_at=ending.at,
        output=ending.output,
        error=ending.error,
        metrics=ending.metrics,
        warnings=ending.warnings,
        executions=run.executions + (run.state is RunState.LEASED),
        **_with(run, ending.used),
    )


def _with(run: Run, used: Usage) -> dict[str, int]:
    """The fields of a run with this usage added."""
    return msgspec.structs.asdict(run.used + used)


def at_start(run: Run) -> Run:
    """The run as it was when a worker first began it, whatever has become of it since. `executions` counts the attempts
    that began, the present one only once it is over.
    """
    before = run.executions if run.state is RunState.LEASED else max(0, run.executions - 1)
    first = max(1, run.attempt - before)
    same = first == run.attempt
    return msgspec.structs.replace(
        run,
        state=RunState.LEASED,
        attempt=first,
        worker_id=run.worker_id if same else "",
        routing=run.routing if same else b"",
        finished_at=0.0,
        output=b"",
        error=None,
        metrics=b"",
        warnings=b"",
    )


def request_cancel(run: Run) -> Run | None:
    """Record that the caller no longer wants the run; None once it is final."""
    return None if run.is_final else msgspec.structs.replace(run, cancel_requested=True)
