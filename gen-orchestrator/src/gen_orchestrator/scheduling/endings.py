"""How runs end other than by success, and the text of each ending. Pure. `at` is unix seconds."""

import msgspec

from gen_orchestrator.domain import runs
from gen_orchestrator.domain.runs import Ending, Run, RunError, RunState
from gen_orchestrator.scheduling.heard import UNREADABLE
from gen_worker.contract.run import RunSession
from gen_worker.errors import FieldError
from gen_worker.wire.messages import RunResult

MAX_FIELD_ERRORS = 100
SESSION_LOST = "worker_lost"


def canceled(at: float) -> Ending:
    """The caller cancelled it."""
    return Ending(state=RunState.CANCELED, at=at, error=runs.CANCELED_ERROR)


def expired(waited_s: float, at: float) -> Ending:
    """No worker was free before the run's start deadline."""
    error = RunError(error_type="fatal", code="expired", message=f"no worker was free within {waited_s:.1f} s; the run did not start")
    return Ending(state=RunState.EXPIRED, at=at, error=error)


def worker_lost(at: float) -> Ending:
    """The worker is gone, and this run is not tried again."""
    error = RunError(error_type="fatal", code="worker_lost", message="the worker was lost while it ran this")
    return Ending(state=RunState.FAILED, at=at, error=error)


def session_lost(at: float) -> Ending:
    """The worker, the stream or the leader of a realtime session is gone, and with it some frames."""
    text = "the worker of this session was lost, or the platform was restarted: open a new one"
    return Ending(state=RunState.FAILED, at=at, error=RunError(error_type="retryable", code=SESSION_LOST, message=text, retryable=True))


def session_ended(reason: str, at: float) -> Ending:
    """The platform ended a realtime session for this reason, such as a message that was too large."""
    return Ending(state=RunState.CANCELED, at=at, error=RunError(error_type="canceled", code="canceled", message=reason))


def session_reason(ending: Ending) -> str:
    """The reason for a session's client when no worker gave one."""
    match ending.state:
        case RunState.SUCCEEDED:
            return "completed"
        case RunState.CANCELED:
            return "error:CanceledError"
        case RunState.EXPIRED:
            return "expired"
    code = ending.error.code if ending.error is not None else "internal"
    return {"timeout": "error:DeadlineError", SESSION_LOST: SESSION_LOST}.get(code, f"error:{code}")


def with_session(metrics: bytes, session: RunSession) -> bytes:
    """A run's metrics, with the traffic of its session added."""
    found = msgspec.json.decode(metrics, type=dict[str, msgspec.Raw]) if metrics else {}
    return msgspec.json.encode({**found, "session": session})


def out_of_time(run: Run, stuck: bytes, at: float) -> Ending:
    """The worker did not end the run at its deadline. `stuck` is the worker's last report of where the run hangs."""
    text = f"the run did not end within its {run.timeout_ms} ms, and its worker did not stop it"
    error = RunError(error_type="fatal", code="timeout", message=text, detail=bytes(stuck).decode(errors="replace"))
    return Ending(state=RunState.FAILED, at=at, error=error)


def flooded(most_bytes: int, at: float) -> Ending:
    """The run has sent more output than is kept of one run."""
    text = (
        f"the events of this run have more than {most_bytes} bytes, and no more are kept of one run (GEN_ORCHESTRATOR_RUN_EVENT_BYTES); "
        "save large outputs as files: ctx.save_bytes"
    )
    return Ending(state=RunState.FAILED, at=at, error=RunError(error_type="resource", code="resource", message=text))


def error_of(result: RunResult) -> RunError:
    """The error of a failed result, for its caller. Workers without `code` and `errors_json` tell less."""
    code = result.code or ("timeout" if result.error_message.startswith("DeadlineError") else result.error_type or "internal")
    return RunError(
        error_type=result.error_type or "internal",
        code=code,
        message=result.safe_message,
        retryable=result.retryable,
        detail=result.error_message,
        errors=_field_errors(result.errors_json),
    )


def _field_errors(text: bytes) -> tuple[FieldError, ...]:
    try:
        return msgspec.json.decode(text, type=tuple[FieldError, ...])[:MAX_FIELD_ERRORS] if text else ()
    except UNREADABLE:  # from another implementation of a worker: the message is enough
        return ()
