"""Parses the body of a run request: the payload, bare or in an envelope with options."""

from collections.abc import Mapping
from typing import Any

import msgspec

from gen_worker.contract.form_fields import FormFieldError
from gen_worker.contract.runner import RunOptions
from gen_worker.execution.text_fields import read_json
from gen_worker.http.asgi import RequestError
from gen_worker.json_keys import first_duplicate_key, has_key_twice
from gen_worker.names import RUN_ID_RULE, did_you_mean, is_run_id

_KINDS: Mapping[str, Any] = {
    "run_id": str | None,
    "timeout_ms": int | None,
    "owner": str | None,
    "invoker_id": str | None,
    "required_variant_refs": tuple[str, ...] | None,
    "required_models": tuple[str, ...] | None,
    "resolved_cozy_models_by_id": dict[str, Any] | None,
    "cancel_on_disconnect": bool,
}
_decode = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_all = msgspec.json.Decoder().decode
_NO_OPTIONS = RunOptions()


def read_envelope(body: bytes) -> tuple[bytes, RunOptions]:
    """The payload's JSON and the options; `RequestError` 400 when the body is not JSON or an option is invalid.

    An object whose key `payload` contains an object or a list is an envelope; everything else is the payload itself. A
    duplicate key anywhere is refused, as on the platform: JSON readers disagree about such a text, so it never becomes
    a run.
    """
    try:
        envelope = _decode(body)
        _refuse_keys_twice(body)
    except msgspec.ValidationError:
        return body, _NO_OPTIONS  # JSON, but not an object: the error of the function's own type says what is wrong
    except RecursionError:
        raise RequestError(400, "invalid_json", "the body is nested too deep", error="invalid_json") from None
    except UnicodeDecodeError as exc:
        raise RequestError(400, "invalid_json", f"the body is not UTF-8 (byte {exc.start})", error="invalid_json") from None
    except msgspec.DecodeError as exc:
        detail = f"the body is not JSON: {exc}" if body else "the body is empty; expected a JSON object"
        raise RequestError(400, "invalid_json", detail, error="invalid_json") from None
    payload = envelope.pop("payload", None)
    if payload is None or bytes(memoryview(payload)[:1]) not in (b"{", b"["):
        return body, _NO_OPTIONS
    return bytes(payload), _options(envelope) if envelope else _NO_OPTIONS


def _refuse_keys_twice(body: bytes) -> None:
    # Without a second colon there is no second key, so nothing is decoded: 16 MB of `[],` would become 300 MB of lists.
    if body.count(b":") > 1 and has_key_twice(body, _decode_all(body)) is not False:
        twice = first_duplicate_key(body)
        if twice is not None:
            raise RequestError(400, "validation", f"the body: the key at {twice} is given twice", error="duplicate_key")


def _options(raw: Mapping[str, msgspec.Raw]) -> RunOptions:
    found: dict[str, Any] = {}
    for name, value in raw.items():
        if name not in _KINDS:
            known = ", ".join(_KINDS)
            raise RequestError(
                400,
                "validation",
                f"unknown option {name[:100]!r} beside 'payload'.{did_you_mean(name[:100], _KINDS)} Options are: {known}",
                error="unknown_option",
                hint="Where the function's own payload has a field 'payload', write the payload into an envelope: {\"payload\": {...}}",
            )
        try:
            found[name] = msgspec.convert(read_json(bytes(value)), _KINDS[name])
        except (msgspec.ValidationError, FormFieldError) as exc:
            raise _refused(name, str(exc)) from None
    required = found.get("required_variant_refs") if "required_variant_refs" in found else found.get("required_models")
    options = RunOptions(
        run_id=found.get("run_id"),
        timeout_ms=found.get("timeout_ms") or 0,
        owner=found.get("owner"),
        invoker_id=found.get("invoker_id"),
        required_models=required or (),
        resolved_models=found.get("resolved_cozy_models_by_id"),
        cancel_on_disconnect=found.get("cancel_on_disconnect", True),
    )
    if options.run_id is not None and not is_run_id(options.run_id):
        raise _refused("run_id", f"{options.run_id[:100]!r}; {RUN_ID_RULE}")
    if not 0 <= options.timeout_ms <= 7 * 24 * 3600 * 1000:
        raise _refused("timeout_ms", f"{options.timeout_ms}; expected milliseconds from 0 (no limit) to 604800000 (a week)")
    return options


def _refused(name: str, why: str) -> RequestError:
    return RequestError(400, "validation", f"option {name!r}: {why}", error=f"invalid_{name}")
