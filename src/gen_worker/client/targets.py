"""One call: the function, its payload, its options."""

import secrets
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import msgspec

from gen_worker.names import TAG_RULE, is_tag


class Target(msgspec.Struct, frozen=True):
    """A function as named by its caller. `owner` is empty for a bare name, which only a dev runner accepts."""

    function: str
    owner: str = ""
    endpoint: str = ""
    suffix: str = ""  # `:tag` or `@release`

    @property
    def platform_path(self) -> str:
        return f"/v1/{quote(self.owner, safe='')}/{quote(self.endpoint, safe='')}/{quote(self.function, safe='')}{self.suffix}"

    @property
    def runner_path(self) -> str:
        return f"/v1/run/{quote(self.function, safe='')}"

    def __str__(self) -> str:
        return f"{self.owner}/{self.endpoint}/{self.function}{self.suffix}" if self.owner else self.function


def read_target(ref: str) -> Target:
    """The function in a text; `ValueError` says what was expected."""
    mark = "@" if "@" in ref else ":"
    name, marked, rest = ref.partition(mark)
    parts = name.split("/")
    if len(parts) not in (1, 3) or not all(parts):
        raise ValueError(
            f"{ref[:200]!r}: expected owner/endpoint/function[:tag], such as 'local/hello/generate', or a function of a dev runner"
        )
    if marked and mark == ":" and not is_tag(rest):
        raise ValueError(f"{ref[:200]!r}: tag {rest[:80]!r}: {TAG_RULE}")
    if marked and not rest:
        raise ValueError(f"{ref[:200]!r}: expected a release after '@'")
    suffix = f"{mark}{quote(rest, safe='')}" if marked else ""
    return Target(parts[0], suffix=suffix) if len(parts) == 1 else Target(parts[2], parts[0], parts[1], suffix)


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """A caller's options for a run. Seconds; 0: the function's own. A dev runner supports only `timeout_s`."""

    timeout_s: float = 0.0
    start_timeout_s: float = 0.0
    priority: str = ""
    webhook: str = ""
    webhook_events: tuple[str, ...] = ()


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """One call of a function. `key` makes it safe to send again; empty: it is sent once."""

    target: Target
    payload: msgspec.Raw
    options: Options
    key: str

    def platform_body(self) -> bytes:
        given = {name: value for name in Options.__struct_fields__ if (value := getattr(self.options, name))}
        return _encode({"payload": self.payload, **given})

    def runner_body(self) -> bytes:
        # A lost stream is resumed, so its end must not end the run.
        given: dict[str, Any] = {"cancel_on_disconnect": False}
        if self.options.timeout_s:
            given["timeout_ms"] = max(1, round(self.options.timeout_s * 1000))
        return _encode({"payload": self.payload, **given})


_encode = msgspec.json.Encoder().encode


def make_call(ref: str, payload: Any, options: Options, key: str | None) -> Call:
    """Check a caller's arguments; `ValueError` and `TypeError` before anything is sent."""
    if key is not None and not (len(key) <= 255 and key.isascii() and key.isprintable()):
        raise ValueError(f"idempotency_key {key[:80]!r}: expected at most 255 printable ASCII characters, '' for none")
    made = secrets.token_hex(16) if key is None else key
    return Call(target=read_target(ref), payload=encode_payload(payload), options=options, key=made)


def encode_payload(payload: Any) -> msgspec.Raw:
    """A payload's JSON, from a mapping, a Struct, a dataclass or an attrs class. `TypeError` when that is not a JSON object."""
    try:
        encoded = _encode({} if payload is None else dict(payload) if isinstance(payload, Mapping) else payload)
    except (TypeError, ValueError, OverflowError, RecursionError) as exc:
        raise TypeError(f"the payload cannot be sent as JSON: {exc}") from exc
    if not encoded.startswith(b"{"):
        raise TypeError(f"the payload is a {type(payload).__name__}: expected a dict, a msgspec.Struct or a dataclass")
    return msgspec.Raw(encoded)
