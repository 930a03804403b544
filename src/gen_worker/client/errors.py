"""Errors of the client: the server did not accept a request, or the run that it accepted ended without a result.

ClientError
  GatewayError          no run of yours failed: the request was refused, or nobody answered
    UnreachableError    no answer: wrong address, server down, connection lost
    AuthenticationError 401, 403
    NotFoundError       404: no such function, tag, run or file
    InvalidRequestError 400, 409, 413, 415, 422: the request has to change
    OverloadedError     429, 503: later it may be accepted
    EventsLostError     a stream cannot continue: events are gone, or another attempt produced other items
  RunError              a run was accepted, and this is how it ended
    RunFailedError      the function raised an exception, or its payload was wrong
    RunCanceledError    the run was cancelled
    RunExpiredError     its time was up, before it started or while it ran
  SessionError          a realtime session has ended
  OutputTypeError       the output does not fit the requested type
"""

from collections.abc import Sequence

from gen_worker.client.values import Run
from gen_worker.errors import FieldError


class ClientError(Exception):
    """Base of all errors of this client.

    `code` is a stable word (docs/errors.md), `detail` says what happened, `hint` what to do (may be empty), `run_id`
    names the run if there is one, `errors` points at fields of the payload.
    """

    def __init__(self, detail: str, *, code: str, hint: str = "", run_id: str = "", errors: Sequence[FieldError] = ()) -> None:
        super().__init__(detail, code, hint, run_id, tuple(errors))
        self.detail = detail
        self.code = code
        self.hint = hint
        self.run_id = run_id
        self.errors = tuple(errors)

    def __str__(self) -> str:
        text = f"{self.detail} ({self.code})"
        if self.run_id:
            text += f" [run {self.run_id}]"
        for error in self.errors:
            text += f"\n  {error.pointer or '/'}: {error.message}"
        return f"{text}\n  hint: {self.hint}" if self.hint else text

    def __reduce__(self) -> tuple[object, ...]:  # pickling to another process would otherwise lose the keyword arguments
        return _restore, (type(self), self.detail, self.code, self.hint, self.run_id, self.errors, self._more())

    def _more(self) -> dict[str, object]:
        return {}


class GatewayError(ClientError):
    """The server refused a request, or returned no usable answer. `status` is the HTTP status; 0 without an answer.

    `retry_after_s`: seconds to wait, as the server asks; None when it does not say.
    """

    def __init__(
        self,
        detail: str,
        *,
        code: str,
        status: int = 0,
        hint: str = "",
        run_id: str = "",
        errors: Sequence[FieldError] = (),
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(detail, code=code, hint=hint, run_id=run_id, errors=errors)
        self.status = status
        self.retry_after_s = retry_after_s

    def _more(self) -> dict[str, object]:
        return {"status": self.status, "retry_after_s": self.retry_after_s}


class UnreachableError(GatewayError):
    """No answer arrived. If the connection broke after the request was sent, the server may have accepted it."""


class AuthenticationError(GatewayError):
    """401: no key, or an invalid one. 403: the key may not do this."""


class NotFoundError(GatewayError):
    """404: no such function, tag, run or file; the detail names the nearest one."""


class InvalidRequestError(GatewayError):
    """400, 409, 413, 415, 422: the request itself is wrong; the same request would be refused again."""


class OverloadedError(GatewayError):
    """429 or 503, after all retries of this client."""


class EventsLostError(GatewayError):
    """Items of a stream are no longer available, or a later attempt produced others than those already delivered."""


class RunError(ClientError):
    """A run ended without a result. `run` is its last known state."""

    def __init__(
        self,
        detail: str,
        *,
        code: str,
        run: Run,
        hint: str = "",
        run_id: str = "",
        errors: Sequence[FieldError] = (),
        retryable: bool = False,
    ) -> None:
        super().__init__(detail, code=code, hint=hint, run_id=run_id or run.id, errors=errors)
        self.run = run
        self.retryable = retryable

    def _more(self) -> dict[str, object]:
        return {"run": self.run, "retryable": self.retryable}


class RunFailedError(RunError):
    """The function raised an exception, or does not accept the payload (then `code` is `validation`, and `errors`
    points at the fields).
    """


class RunCanceledError(RunError):
    """The run was cancelled."""


class RunExpiredError(RunError):
    """The run's time was up: `code` is `expired` before it started, `timeout` while it ran."""


class SessionError(ClientError):
    """A realtime session has ended. `close_code` and `reason` are those of its websocket (docs/http-api.md#realtime);
    1006 means that the connection broke. `retryable`: a new session may succeed.
    """

    def __init__(
        self,
        detail: str,
        *,
        code: str,
        hint: str = "",
        run_id: str = "",
        errors: Sequence[FieldError] = (),
        close_code: int,
        reason: str,
        retryable: bool = False,
    ) -> None:
        super().__init__(detail, code=code, hint=hint, run_id=run_id, errors=errors)
        self.close_code = close_code
        self.reason = reason
        self.retryable = retryable

    def _more(self) -> dict[str, object]:
        return {"close_code": self.close_code, "reason": self.reason, "retryable": self.retryable}


class OutputTypeError(ClientError, TypeError):
    """The run succeeded, but its output does not fit `output=`. `run.output` contains it as received."""

    def __init__(
        self, detail: str, *, run: Run, code: str = "output_type", hint: str = "", run_id: str = "", errors: Sequence[FieldError] = ()
    ) -> None:
        super().__init__(detail, code=code, hint=hint, run_id=run_id or run.id, errors=errors)
        self.run = run

    def _more(self) -> dict[str, object]:
        return {"run": self.run}


def _restore(
    kind: type[ClientError], detail: str, code: str, hint: str, run_id: str, errors: Sequence[FieldError], more: dict[str, object]
) -> ClientError:
    return kind(detail, code=code, hint=hint, run_id=run_id, errors=errors, **more)
