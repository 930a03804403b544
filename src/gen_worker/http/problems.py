"""Errors as `application/problem+json` (RFC 9457), and the one table from outcomes to HTTP statuses."""

from gen_worker.contract.problem import PROBLEM_JSON, Problem
from gen_worker.errors import FieldError
from gen_worker.http.phrases import PHRASES

__all__ = ["PROBLEM_JSON", "Problem", "problem", "status_of"]

# By code first, then by error type, because codes of one type may need different statuses.
_STATUSES = {
    "validation": 400,
    "too_large": 413,
    "auth": 401,
    "not_found": 404,
    "conflict": 409,
    "canceled": 409,
    "unprocessable": 422,
    "retryable": 503,
    "storage": 507,
    "resource": 503,
    "out_of_memory": 503,
    "disk_full": 507,
    "timeout": 504,
    "fatal": 500,
    "internal": 500,
}


def status_of(code: str, error_type: str = "") -> int:
    """The HTTP status of a failed run or request."""
    return _STATUSES.get(code) or _STATUSES.get(error_type, 500)


def problem(
    status: int,
    code: str,
    detail: str,
    *,
    error: str | None = None,
    hint: str | None = None,
    instance: str | None = None,
    errors: tuple[FieldError, ...] = (),
) -> Problem:
    """The problem for a request that never became a run."""
    return Problem(
        title=PHRASES[status],
        status=status,
        detail=detail,
        code=code,
        error=error,
        hint=hint,
        instance=instance,
        errors=errors,
        retryable=status in (429, 503),
    )
