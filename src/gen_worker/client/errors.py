"""What goes wrong for a caller: the server did not take a request, or the run that it took ended without a result.

ClientError
  GatewayError          no run of yours failed: the request was refused, or nobody answered
    UnreachableError    no answer: wrong address, server down, connection lost
    AuthenticationError 401, 403
    NotFoundError       404: no such function, tag, run or file
    InvalidRequestError 400, 409, 413, 422: the request has to change
    OverloadedError     429, 503: later it may be taken
    EventsLostError     a stream cannot go on where it was: events are gone, or another attempt says something else
  RunError              a run was accepted, and this is how it ended
    RunFailedError      the function raised, or its payload was wrong
    RunCanceledError    somebody cancelled it
    RunExpiredError     its time was up, before it started or while it ran
  OutputTypeError       the output does not fit the type that was asked for
"""

from collections.abc import Sequence

from gen_worker.client.values import Run
from gen_worker.errors import FieldError


class ClientError(Exception):
    """Base of all errors of this client.

    `code` is a stable word (docs/errors.md), `detail` says what happened, `hint` what to do (may be empty), `run_id` names the run where
    there is one, `errors` points at fields of the payload.
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

    def __reduce__(self) -> tuple[object, ...]:  # through a process pool: arguments by name do not travel otherwise
        return _restore, (type(self), self.detail, self.code, self.hint, self.run_id, self.errors, self._more())

    def _more(self) -> dict[str, object]:
        return {}


class GatewayError(ClientError):
    """The server refused a request, or gave no usable answer. `status` is the HTTP status, 0 without an answer.

    `retry_after_s`: how long it asks to be left alone; None where it does not say.
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
    """No answer came. Whether a request was taken is not known where the connection broke after it was sent."""


class AuthenticationError(GatewayError):
    """401: no key, or one that is not accepted. 403: a key that may not do this."""


class NotFoundError(GatewayError):
    """404: there is no such function, tag, run or file; the detail names the nearest."""


class InvalidRequestError(GatewayError):
    """400, 409, 413, 415, 422: the request itself is wrong, and the same again is refused again."""


class OverloadedError(GatewayError):
    """429 or 503, after as many tries as this client makes."""


class EventsLostError(GatewayError):
    """Items of a stream cannot be had any more, or a later attempt gave others than those that were delivered."""


class RunError(ClientError):
    """A run ended without a result. `run` is all that is known of it."""

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
    """The function raised, or the payload does not fit it (`code` is `validation` then, and `errors` says where)."""


class RunCanceledError(RunError):
    """The run was cancelled."""


class RunExpiredError(RunError):
    """The run's time was up: `code` is `expired` before it started, `timeout` while it ran."""


class OutputTypeError(ClientError, TypeError):
    """The run succeeded, but its output does not fit `output=`. `run.output` holds it as it came."""

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
