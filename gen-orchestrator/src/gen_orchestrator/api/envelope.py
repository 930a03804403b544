"""Converts the body of an invocation, `{"payload": {...}, options}` or the bare payload, to msgpack and options."""

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from gen_orchestrator.api.json_bodies import JsonError, read_json
from gen_orchestrator.api.payload_bytes import with_bytes
from gen_orchestrator.domain.runs import PRIORITIES
from gen_orchestrator.domain.webhooks import EVENTS
from gen_worker.contract.run import InvokeOptions
from gen_worker.errors import FieldError
from gen_worker.http.asgi import RequestError
from gen_worker.json_keys import escape_pointer
from gen_worker.names import did_you_mean

MAX_TIMEOUT_S = 7 * 24 * 3600.0
MIN_TIMEOUT_S = 0.001  # time limits are stored in milliseconds
MAX_WEBHOOK_CHARS = 2048
MAX_PAYLOAD_BYTES = 15 << 20  # below the 16 MiB limit of a message to a worker


class Invocation(msgspec.Struct, frozen=True):
    """A checked body. `fingerprint` identifies equal requests under one idempotency key."""

    payload: bytes
    options: InvokeOptions
    fingerprint: str


_OPTIONS = frozenset(InvokeOptions.__struct_fields__)
_encode = msgspec.msgpack.Encoder().encode


def read_invocation(body: bytes, path: str, bytes_schema: dict[str, Any] | None = None) -> Invocation:
    """Read a body; `RequestError` 400 says what is wrong with it. `bytes_schema`: the schema of a payload with bytes fields."""
    if not body:
        raise RequestError(400, "invalid_json", "the body is empty; expected a JSON object", error="invalid_json")
    try:
        value: Any = read_json(body)
    except JsonError as exc:
        raise refused(exc, "the body") from None
    if not isinstance(value, dict):
        raise RequestError(400, "validation", f"the body is a {_kind(value)}; expected a JSON object", error="invalid_json")
    options = InvokeOptions()
    # As in the runner's contract: with an object or a list at `payload` it is an envelope, otherwise the payload itself.
    name = "payload" if "payload" in value else "input" if "input" in value and value.keys() - {"input"} <= _OPTIONS else ""
    if name and isinstance(value[name], dict):
        payload = value.pop(name)
        options = _options(value)
        value = payload
    elif name == "payload" and isinstance(value[name], list):
        raise RequestError(400, "validation", "payload is a list; expected a JSON object", error="invalid_payload")
    fingerprint = hashlib.blake2b(path.encode() + b"\0" + body, digest_size=16).hexdigest()
    try:
        payload = _encode(value if bytes_schema is None else with_bytes(value, bytes_schema))
    except OverflowError:
        error = FieldError(_too_large(value) or "", "an integer that workers cannot read", "a number from -2^63 to 2^64 - 1")
        detail = f"payload{error.pointer}: {error.message}; expected {error.expected}"
        raise RequestError(400, "validation", detail, error="invalid_payload") from None
    if len(payload) > MAX_PAYLOAD_BYTES:
        detail = (
            f"payload of {len(payload)} bytes; a worker accepts at most {MAX_PAYLOAD_BYTES}: send large inputs as files, by form or by URL"
        )
        raise RequestError(413, "too_large", detail)
    return Invocation(payload, options, fingerprint)


def _too_large(value: Any, pointer: str = "") -> str | None:
    """The position of an integer that msgpack cannot represent."""
    if isinstance(value, int):
        return None if -(1 << 63) <= value < 1 << 64 else pointer
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in items:
        found = _too_large(each, f"{pointer}/{escape_pointer(str(key))}")
        if found is not None:
            return found
    return None


def refused(error: JsonError, what: str) -> RequestError:
    """The error for invalid JSON."""
    if error.too_large:
        return RequestError(413, "too_large", error.about(what))
    code = "invalid_json" if error.word == "invalid_json" else "validation"
    return RequestError(400, code, error.about(what), error=error.word)


def _options(given: dict[str, Any]) -> InvokeOptions:
    for name in given:
        if name == "input":  # without other options, it is the payload itself
            detail = "the payload is given twice, as 'payload' and as 'input', which mean the same: use only one of them"
            raise RequestError(400, "validation", detail, error="invalid_payload")
        if name not in _OPTIONS:
            known = ", ".join(sorted(_OPTIONS))
            near = did_you_mean(name[:100], _OPTIONS)
            raise RequestError(400, "validation", f"unknown option {name[:60]!r}.{near} Options: {known}", error="unknown_option")
    try:
        options = msgspec.convert(given, InvokeOptions)
    except msgspec.ValidationError as exc:
        what, _, place = str(exc).partition(" - at `$.")
        place = place.rstrip("`")
        detail = f"option {place}: {what[:1].lower()}{what[1:].replace('`', '')}"
        raise RequestError(400, "validation", detail, error=f"invalid_{place.partition('[')[0]}") from None
    for name in given:
        if wrong := _WRONG[name](getattr(options, name)):
            raise RequestError(400, "validation", wrong, error=f"invalid_{name}")
    if "webhook_events" in given and not options.webhook:
        raise RequestError(400, "validation", "webhook_events without webhook: add the URL to notify", error="invalid_webhook_events")
    return options


# The error in a given option, "" for none. An option without effect is an error, because its author expects one.


def _wrong_seconds(name: str) -> Callable[[float], str]:
    def wrong(value: float) -> str:
        if value == 0 or MIN_TIMEOUT_S <= value <= MAX_TIMEOUT_S:
            return ""
        return f"{name}={value}: expected seconds from {MIN_TIMEOUT_S} to {MAX_TIMEOUT_S:.0f} (a week), or 0 (the function's own time)"

    return wrong


def _wrong_priority(value: str) -> str:
    if value in PRIORITIES:
        return ""
    return f"priority {value[:40]!r}.{did_you_mean(value[:100], PRIORITIES)} Expected: {', '.join(PRIORITIES)}"


def _wrong_webhook(value: str) -> str:
    if not value:
        return "webhook is empty: expected an https URL; leave the option out if nobody should be notified"
    if len(value) > MAX_WEBHOOK_CHARS:
        return f"webhook has {len(value)} characters: expected a URL of at most {MAX_WEBHOOK_CHARS}"
    if not value.lower().startswith(("https://", "http://")):
        scheme, colon, _ = value.partition("://")
        near = "" if colon else f" Did you mean {'https://' + value[:100].lstrip('/')!r}?"
        what = f"has the scheme {scheme[:20]!r}" if colon else "has no scheme"
        return f"webhook {value[:100]!r} {what}: expected https://HOST/PATH, or http://.{near}"
    return ""


def _wrong_events(value: tuple[str, ...]) -> str:
    if not value:
        return f"webhook_events is empty: expected some of {', '.join(EVENTS)}; leave the option out to be notified of the run's end"
    for event in value:
        if event not in EVENTS:
            return f"webhook_events: {event[:40]!r}.{did_you_mean(event[:100], EVENTS)} Expected some of: {', '.join(EVENTS)}"
    return "webhook_events names an event twice" if len(set(value)) < len(value) else ""


_WRONG: Mapping[str, Callable[[Any], str]] = {
    "timeout_s": _wrong_seconds("timeout_s"),
    "start_timeout_s": _wrong_seconds("start_timeout_s"),
    "priority": _wrong_priority,
    "webhook": _wrong_webhook,
    "webhook_events": _wrong_events,
}


def _kind(value: Any) -> str:
    names = {list: "list", str: "string", int: "number", float: "number", bool: "boolean", type(None): "null"}
    return names[type(value)]
