"""Removes secrets from worker messages on arrival, so that no later code stores, shows, sends or logs one."""

import msgspec

from gen_orchestrator.domain.redaction import Redactor
from gen_worker.wire.messages import CloseRealtime, Event, RealtimeFrame, RunResult
from gen_worker.wire.scheduler_session import RunEnded, SchedulerEffect

_OF_AN_END = ("reason", "error_type", "code", "safe_message", "error_message")


def redacted(effect: SchedulerEffect, redactor: Redactor) -> SchedulerEffect:
    """The effect with secret values replaced by their names."""
    if not redactor:  # most endpoints have no secrets
        return effect
    match effect:
        case Event():
            kind, payload = redactor.text(effect.event_type), redactor.json(effect.payload)
            if payload is effect.payload and kind == effect.event_type:  # nearly always: nothing is copied
                return effect
            return msgspec.structs.replace(effect, event_type=kind, payload=payload)
        case RunEnded(result):
            return msgspec.structs.replace(effect, result=_result(result, redactor))
        case RealtimeFrame():  # binary, too: a value may be in a message of any kind
            return msgspec.structs.replace(effect, data=redactor.json(effect.data))
        case CloseRealtime():
            return msgspec.structs.replace(effect, **{name: redactor.text(getattr(effect, name)) for name in _OF_AN_END})
    return effect


def _result(result: RunResult, redactor: Redactor) -> RunResult:
    return msgspec.structs.replace(
        result,
        output=redactor.msgpack(result.output),
        error_message=redactor.text(result.error_message),
        error_type=redactor.text(result.error_type),
        safe_message=redactor.text(result.safe_message),
        code=redactor.text(result.code),
        errors_json=redactor.json(result.errors_json),
    )
