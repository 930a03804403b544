"""Errors as `application/problem+json` (RFC 9457)."""

import msgspec

from gen_worker.errors import FieldError

PROBLEM_JSON = b"application/problem+json"


class SpentBudget(msgspec.Struct, frozen=True):
    """A budget of a key that has no room: `rate`, `concurrency` or `gpu_seconds`. `free_at` is null where that is when a run ends."""

    name: str
    limit: str
    used: float
    free_at: str | None


class Problem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A problem. `code` is a stable word; `error` the word that the runner's contract uses for the same thing. `hint` says what to do,
    `cli_hint` the same to a user of cozyctl, where that is another thing."""

    # Always written, as RFC 9457's own examples do; made by a factory, since `omit_defaults` leaves out what equals a default.
    type: str = msgspec.field(default_factory=lambda: "about:blank")
    title: str
    status: int
    detail: str
    code: str
    instance: str | None = None
    error: str | None = None
    retryable: bool = False
    run_id: str | None = None
    errors: tuple[FieldError, ...] = ()
    hint: str | None = None
    cli_hint: str | None = None
    budget: SpentBudget | None = None
