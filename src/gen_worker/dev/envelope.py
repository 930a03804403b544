"""The body of a run request: the payload, bare or in an envelope with options."""

from typing import Any

import msgspec

from gen_worker.http.asgi import RequestError
from gen_worker.names import RUN_ID_RULE, is_run_id

Unset = msgspec.UnsetType


class RunOptions(msgspec.Struct, frozen=True):
    """What an envelope may hold beside the payload."""

    run_id: str | None = None
    timeout_ms: int = 0
    owner: str | None = None
    invoker_id: str | None = None
    required_models: tuple[str, ...] = ()
    resolved_models: dict[str, Any] | None = None
    cancel_on_disconnect: bool = True


class _Envelope(msgspec.Struct):
    payload: msgspec.Raw | Unset = msgspec.UNSET
    run_id: msgspec.Raw | Unset = msgspec.UNSET
    timeout_ms: msgspec.Raw | Unset = msgspec.UNSET
    owner: msgspec.Raw | Unset = msgspec.UNSET
    invoker_id: msgspec.Raw | Unset = msgspec.UNSET
    required_variant_refs: msgspec.Raw | Unset = msgspec.UNSET
    required_models: msgspec.Raw | Unset = msgspec.UNSET
    resolved_cozy_models_by_id: msgspec.Raw | Unset = msgspec.UNSET
    cancel_on_disconnect: msgspec.Raw | Unset = msgspec.UNSET


_decode = msgspec.json.Decoder(_Envelope).decode
_NO_OPTIONS = RunOptions()


def read_envelope(body: bytes) -> tuple[bytes, RunOptions]:
    """The payload's JSON and the options; `RequestError` 400 for what is no JSON, or an option that cannot be used.

    An object whose key `payload` holds an object or a list is an envelope; everything else is the payload itself.
    """
    try:
        envelope = _decode(body)
    except msgspec.ValidationError:
        return body, _NO_OPTIONS  # JSON, but no object: the function's own type says what is wrong
    except RecursionError:
        raise RequestError(400, "invalid_json", "the body is nested too deep", error="invalid_json") from None
    except UnicodeDecodeError as exc:
        raise RequestError(400, "invalid_json", f"the body is not UTF-8 (byte {exc.start})", error="invalid_json") from None
    except msgspec.DecodeError as exc:
        detail = f"the body is not JSON: {exc}" if body else "the body is empty; expected a JSON object"
        raise RequestError(400, "invalid_json", detail, error="invalid_json") from None
    payload = envelope.payload
    if isinstance(payload, Unset) or bytes(memoryview(payload)[:1]) not in (b"{", b"["):
        return body, _NO_OPTIONS
    return bytes(payload), _options(envelope)


def _options(envelope: _Envelope) -> RunOptions:
    required = envelope.required_variant_refs
    options = RunOptions(
        run_id=_option(envelope.run_id, "run_id", str | None, None),
        timeout_ms=_option(envelope.timeout_ms, "timeout_ms", int | None, None) or 0,
        owner=_option(envelope.owner, "owner", str | None, None),
        invoker_id=_option(envelope.invoker_id, "invoker_id", str | None, None),
        required_models=_option(
            envelope.required_models if isinstance(required, Unset) else required, "required_variant_refs", tuple[str, ...] | None, None
        )
        or (),
        resolved_models=_option(envelope.resolved_cozy_models_by_id, "resolved_cozy_models_by_id", dict[str, Any] | None, None),
        cancel_on_disconnect=_option(envelope.cancel_on_disconnect, "cancel_on_disconnect", bool, True),
    )
    if options.run_id is not None and not is_run_id(options.run_id):
        raise _refused("run_id", f"{options.run_id[:100]!r}; {RUN_ID_RULE}")
    if not 0 <= options.timeout_ms <= 7 * 24 * 3600 * 1000:
        raise _refused("timeout_ms", f"{options.timeout_ms}; expected milliseconds from 0 (no limit) to 604800000 (a week)")
    return options


def _option(raw: msgspec.Raw | Unset, name: str, kind: Any, default: Any) -> Any:
    if isinstance(raw, Unset):
        return default
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise _refused(name, str(exc)) from None


def _refused(name: str, why: str) -> RequestError:
    return RequestError(400, "validation", f"option {name!r}: {why}", error=f"invalid_{name}")
