"""Errors as `application/problem+json` (RFC 9457)."""

import msgspec

from gen_worker.errors import FieldError

PROBLEM_JSON = b"application/problem+json"


class SpentBudget(msgspec.Struct, frozen=True):
    """A key's budget that is used up: `rate`, `concurrency` or `gpu_seconds`. `free_at` is null when it frees up with
    the end of a run.
    """

    name: str
    limit: str
    used: float
    free_at: str | None


class Problem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A problem. `code` is a stable word; `error` is the dev runner's word for the same problem. `hint` says what to
    do; `cli_hint` says it for users of cozyctl, if that differs.
    """

    # Always written, as in RFC 9457's own examples. The default comes from a factory, because `omit_defaults` drops
    # fields equal to their default.
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
