"""Exceptions that a user's function may raise, and what callers see of them.

Every class has a stable `error_type` (the word on the wire) and a `code` (the word in HTTP problems; more specific
where it helps), and says whether the same run may succeed when it is tried again.
"""

import errno
from typing import ClassVar

import msgspec

DISK_IS_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})  # `errno` of a write without room or quota


class FieldError(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing wrong with a payload. `pointer` is a JSON pointer (RFC 6901) into it."""

    pointer: str
    message: str
    expected: str | None = None
    got: str | None = None
    suggestion: str | None = None


class WorkerError(Exception):
    """Base of the errors that end a run with a defined outcome."""

    error_type: ClassVar[str] = "internal"
    code: ClassVar[str] = "internal"
    retryable: ClassVar[bool] = False


class ValidationError(WorkerError):
    """The caller's input is wrong: HTTP 400, never retried. `errors` points at the fields."""

    error_type = code = "validation"

    def __init__(self, message: str = "", *, errors: tuple[FieldError, ...] = ()) -> None:
        super().__init__(message)
        self.errors = errors


class RetryableError(WorkerError):
    """A temporary failure; the run may be tried again, elsewhere or later."""

    error_type = code = "retryable"
    retryable = True


class StorageError(RetryableError):
    """The place where runs save their files has no room left; there may be room later. The worker is not at fault."""

    code = "storage"


class ResourceError(WorkerError):
    """The machine lacks something that this run needs (memory, disk)."""

    error_type = code = "resource"


class DiskFullError(ResourceError):
    """The disk has no room for what this run needs; there may be room later or on another machine."""

    code = "disk_full"
    retryable = True


class CanceledError(WorkerError):
    """The run was cancelled."""

    error_type = code = "canceled"


class FatalError(WorkerError):
    """The run cannot succeed, however often it is tried."""

    error_type = code = "fatal"


class DeadlineError(FatalError):
    """The run did not end within its `timeout_ms`. Fatal on the wire, because repeating a run that timed out is likely
    to time out again.
    """

    code = "timeout"


class OutputError(FatalError):
    """The function returned something other than what its signature declares."""

    code = "bad_output"


class AuthError(WorkerError):
    """A credential was missing, wrong or expired."""

    error_type = code = "auth"


class MissingExtraError(WorkerError, ImportError):
    """An optional dependency is not installed; the message names the command that adds it."""

    error_type = "fatal"
    code = "missing_extra"

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(f"{purpose} needs the package '{package}', which is not installed. Add it with: pip install 'gen-worker[{extra}]'")
        self.package = package
        self.extra = extra


class CozyHubError(WorkerError, RuntimeError):
    """The hub refused a model. `status` is its HTTP status, `said` its own words."""

    error_type = code = "fatal"

    def __init__(self, message: str = "", status: int = 0, said: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.said = said


class CozyHubNoCompatibleArtifactError(CozyHubError):
    """The hub has the model, but in no form that was asked for; `debug` is the hub's explanation."""

    def __init__(self, debug: object = None, message: str = "") -> None:
        super().__init__(message or f"the hub has no compatible form of this model: {str(debug)[:300]}", 409)
        self.debug = debug


class CozyHubPublicModelPendingError(CozyHubError):
    """The hub is still fetching the model; a later try will find it."""

    error_type = code = "retryable"
    retryable = True

    def __init__(self, ingest_job_id: str = "") -> None:
        super().__init__(f"the hub is still fetching this model (job {ingest_job_id[:80]}); try again later", 202)
        self.ingest_job_id = ingest_job_id
