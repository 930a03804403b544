"""Requests and answers of a runner on one machine (`cozyctl dev`). The control plane's run in `contract/run.py` has
more fields: owner, endpoint, release, attempt.
"""

from typing import Any, Literal, get_args

import msgspec

from gen_worker.contract.problem import Problem
from gen_worker.contract.run import Usage
from gen_worker.errors import FieldError

RunnerStatus = Literal["queued", "running", "succeeded", "failed", "canceled"]
RUNNER_STATUSES: tuple[RunnerStatus, ...] = get_args(RunnerStatus)


class RunOptions(msgspec.Struct, frozen=True):
    """What an envelope may contain besides the payload. `timeout_ms` 0: no limit; `required_models` are refs."""

    run_id: str | None = None
    timeout_ms: int = 0
    owner: str | None = None
    invoker_id: str | None = None
    required_models: tuple[str, ...] = ()
    resolved_models: dict[str, Any] | None = None
    cancel_on_disconnect: bool = True


class Timing(msgspec.Struct):
    total_ms: int


class RunAnswer(msgspec.Struct, omit_defaults=True):
    """The answer of `POST /v1/run/{function}`; `code`, `errors`, `files` and `warnings` appear only when they have content."""

    error_message: str
    error_type: str
    events: msgspec.Raw
    output: Any
    run_id: str
    safe_message: str
    success: bool
    timing_ms: Timing
    code: str = ""
    errors: tuple[FieldError, ...] = ()
    files: list[dict[str, Any]] = []
    outputs: list[msgspec.Raw] | None = None
    retryable: bool = False
    warnings: tuple[FieldError, ...] = ()


class RunnerRun(msgspec.Struct, omit_defaults=True):
    """A run as shown by `GET /v1/runs/{id}`. Times are RFC 3339 in UTC, `timings` milliseconds."""

    id: str
    status: str
    function: str
    output: Any
    events_url: str
    created_at: str
    timings: dict[str, int]
    progress: Any = None
    usage: Usage | None = None
    error: Problem | None = None
    files: list[dict[str, Any]] = []
    started_at: str | None = None
    finished_at: str | None = None
    warnings: tuple[FieldError, ...] = ()
