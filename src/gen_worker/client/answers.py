"""Interprets HTTP answers: as a run, from either of the two servers, or as an error.

The platform answers with a run object even when the run failed (status 400, 500, 503 and so on), the dev runner with
the body of the runner contract. Both are runs. Any other answer that is not 2xx is a refusal by the gateway: a problem,
or whatever a proxy in between writes.
"""

import msgspec

from gen_worker.client.effects import Answer
from gen_worker.client.errors import (
    AuthenticationError,
    GatewayError,
    InvalidRequestError,
    NotFoundError,
    OverloadedError,
    RunCanceledError,
    RunError,
    RunExpiredError,
    RunFailedError,
)
from gen_worker.client.values import Run, RunFile, RunProblem
from gen_worker.clock import Clock, SystemClock
from gen_worker.contract.run import TERMINAL
from gen_worker.errors import FieldError
from gen_worker.net.retry import asked_s

_NULL = msgspec.Raw(b"null")
_SHOWN_CHARS = 200


class State(msgspec.Struct, frozen=True):
    """The last known state of a run. `output` is its raw JSON until the output type is known."""

    run: Run
    output: bytes = b"null"

    @property
    def finished(self) -> bool:
        return self.run.status in TERMINAL

    @property
    def has_output(self) -> bool:
        return self.output != b"null"

    def with_output(self, output: bytes) -> "State":
        """The same run with this output, such as the list of the items it streamed."""
        return State(msgspec.structs.replace(self.run, output=msgspec.json.decode(output)), output)


class _Problem(msgspec.Struct, frozen=True):
    """RFC 9457; no field is taken for granted, because proxies write problems, too."""

    detail: str = ""
    code: str = ""
    title: str = ""
    error: str | None = None
    hint: str | None = None
    run_id: str | None = None
    errors: tuple[FieldError, ...] = ()


class _RunnerAnswer(msgspec.Struct, frozen=True):
    """The runner contract's body."""

    run_id: str
    success: bool
    output: msgspec.Raw = _NULL
    outputs: msgspec.Raw = _NULL
    error_type: str = ""
    safe_message: str = ""
    error_message: str = ""
    code: str = ""
    retryable: bool = False
    errors: tuple[FieldError, ...] = ()
    warnings: tuple[FieldError, ...] = ()
    files: tuple[RunFile, ...] = ()
    timing_ms: dict[str, int] = {}


class _Output(msgspec.Struct, frozen=True):
    output: msgspec.Raw = _NULL


_run = msgspec.json.Decoder(Run).decode
_output = msgspec.json.Decoder(_Output).decode
_runner = msgspec.json.Decoder(_RunnerAnswer).decode
_problem = msgspec.json.Decoder(_Problem).decode


def run_in(answer: Answer) -> State:
    """The run in an answer; `GatewayError` when it contains none."""
    found = _state(answer)
    if found is not None:
        return found
    if 200 <= answer.status < 300:
        raise unexpected(answer, "a run")
    raise refusal(answer)


def state_of(data: bytes) -> State:
    """A run object; `msgspec.DecodeError` for anything else."""
    return State(_run(data), bytes(_output(data).output))


def _state(answer: Answer) -> State | None:
    body = answer.body.lstrip()
    if not body.startswith(b"{"):
        return None
    try:
        return state_of(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    try:
        told = _runner(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return _of_runner(told, answer.status) if told.run_id else None


def _of_runner(told: _RunnerAnswer, status: int) -> State:
    output = bytes(told.outputs if bytes(told.output) == b"null" else told.output)
    error = None
    word = "succeeded"
    if not told.success:
        word = "canceled" if told.error_type == "canceled" else "failed"
        text = told.safe_message or told.error_message
        error = RunProblem(
            code=told.code or told.error_type or "internal",
            detail=text,
            status=status,
            retryable=told.retryable,
            errors=told.errors,
            hint=None if told.error_message.endswith(text) else told.error_message,
        )
    run = Run(
        id=told.run_id,
        status=word,
        output=msgspec.json.decode(output),
        files=told.files,
        error=error,
        warnings=told.warnings,
        timings=told.timing_ms,
    )
    return State(run, output)


def result_of(state: State) -> State:
    """The same run if it succeeded; otherwise a `RunError` that says how it ended."""
    run = state.run
    if run.status == "succeeded":
        return state
    raise run_error(run)


def run_error(run: Run) -> RunError:
    """The error for a run that did not succeed."""
    error = run.error or RunProblem(code=run.status, detail=f"the run is {run.status}")
    kind: type[RunError] = RunFailedError
    if run.status == "canceled":
        kind = RunCanceledError
    elif run.status == "expired" or error.code in ("timeout", "expired"):
        kind = RunExpiredError
    detail = error.detail or f"the run is {run.status}"
    return kind(detail, code=error.code, run=run, hint=error.hint or "", errors=error.errors, retryable=error.retryable)


def refusal(answer: Answer, clock: Clock = SystemClock()) -> GatewayError:  # noqa: B008 - without state
    """The error for an answer that is neither 2xx nor a run."""
    problem = problem_in(answer)
    if 300 <= answer.status < 400:
        where = answer.headers.get("location", "")
        return unexpected(answer, "JSON", hint=f"the server redirects to {where[:_SHOWN_CHARS]!r}: use that address" if where else "")
    if problem is None:
        return unexpected(answer, "JSON")
    return _kind(answer.status)(
        problem.detail or problem.title or f"the server answered {answer.status}",
        code=problem.code or "unexpected",
        status=answer.status,
        hint=problem.hint or "",
        run_id=problem.run_id or "",
        errors=problem.errors,
        retry_after_s=asked_s(answer.status, answer.headers, clock),
    )


def is_starting(answer: Answer) -> bool:
    """Whether the server refuses because it is starting. It has not acted on the request, so repeating any request is safe."""
    problem = problem_in(answer) if answer.status == 503 else None
    return problem is not None and problem.error == "starting"


def problem_in(answer: Answer) -> _Problem | None:
    """The problem in an answer; None when it contains something else."""
    try:
        found = _problem(answer.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return found if found.detail or found.code or found.title else None


def unexpected(answer: Answer, expected: str, *, hint: str = "") -> GatewayError:
    """The error for an answer that this client cannot read: from a proxy, a login page, another kind of server."""
    kind = answer.headers.get("content-type", "no content type")[:100]
    said = " ".join(answer.body[: 4 * _SHOWN_CHARS].decode("utf-8", "replace").split())[:_SHOWN_CHARS]
    detail = f"the server answered {answer.status} with {kind}, expected {expected}" + (f": {said!r}" if said else "")
    return _kind(answer.status)(
        detail,
        code="unexpected_answer",
        status=answer.status,
        hint=hint or ("is this the address of `cozyctl up` or `cozyctl dev`, or of a proxy in front of it?" if answer.status < 500 else ""),
        retry_after_s=asked_s(answer.status, answer.headers, SystemClock()),
    )


def _kind(status: int) -> type[GatewayError]:
    if status in (401, 403):
        return AuthenticationError
    if status == 404:
        return NotFoundError
    if status in (400, 405, 409, 410, 413, 415, 422):
        return InvalidRequestError
    return OverloadedError if status in (429, 503) else GatewayError
