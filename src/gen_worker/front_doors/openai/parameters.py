"""Maps a request of the OpenAI API to a function's payload.

a field of the function's payload has the parameter's name   it is passed on
a hint, which the API's documentation allows to be ignored   left out
null, or the default                                         left out
anything else                                                400: ignoring it would break the caller's expectation
"""

from typing import Any

import msgspec

from gen_worker.contract.manifest import Schema
from gen_worker.errors import FieldError
from gen_worker.front_doors.catalog import Target
from gen_worker.http.asgi import Request, RequestError
from gen_worker.json_keys import first_duplicate_key
from gen_worker.names import did_you_mean

MAX_BODY_BYTES = 32 << 20
HINTS = frozenset(
    {"user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention", "prompt_cache_options",
     "parallel_tool_calls", "reasoning_effort", "verbosity", "prediction", "seed", "moderation", "style", "quality", "background",
     "output_compression", "chunking_strategy"}
)  # fmt: skip
# Their defaults.
DEFAULTS: dict[str, tuple[Any, ...]] = {
    "n": (1,), "temperature": (1,), "top_p": (1,), "frequency_penalty": (0,), "presence_penalty": (0,), "logprobs": (False,),
    "top_logprobs": (0,), "logit_bias": ({},), "response_format": ({"type": "text"},), "modalities": (["text"],), "tools": ([],),
    "tool_choice": ("auto", "none"), "stop": ([],), "echo": (False,), "best_of": (1,), "functions": ([],), "size": ("auto",),
    "speed": (1,), "stream_format": ("audio",), "include": ([],), "timestamp_granularities": (["segment"],),
}  # fmt: skip


async def read_object(request: Request) -> dict[str, Any]:
    """The JSON object of a request's body."""
    body = await request.body(MAX_BODY_BYTES)
    try:
        found = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise RequestError(
            400, "invalid_json", f"the body is not JSON: {exc}" if body else "the body is empty", error="invalid_json"
        ) from None
    if not isinstance(found, dict):
        raise RequestError(400, "invalid_json", "the body is not a JSON object", error="invalid_json")
    twice = first_duplicate_key(body) if len(body) < MAX_BODY_BYTES >> 5 else None
    if twice is not None:
        raise RequestError(400, "validation", f"the body: the key at {twice} is given twice", error="duplicate_key")
    return found


def refused(name: str, why: str) -> RequestError:
    """The error for an unsupported parameter."""
    return RequestError(400, "validation", f"{name}: {why}", errors=(FieldError(f"/{name}", why),))


class Parameters:
    """The parameters of one request, taken one by one."""

    def __init__(self, body: dict[str, Any]) -> None:
        self._left = {name: value for name, value in body.items() if value is not None}

    def text(self, name: str) -> str:
        """A required text."""
        value = self._left.pop(name, None)
        if not isinstance(value, str) or not value:
            raise refused(name, "missing" if value is None else f"expected a text, got {str(value)[:40]!r}")
        return value

    def flag(self, name: str) -> bool:
        value = self._left.pop(name, False)
        if not isinstance(value, bool):
            raise refused(name, f"expected true or false, got {str(value)[:40]!r}")
        return value

    def take(self, name: str, default: Any = None) -> Any:
        """A parameter of any type."""
        return self._left.pop(name, default)

    def choice(self, name: str, *known: str) -> str:
        """One of the known words; by default the first."""
        value = self._left.pop(name, known[0])
        if value not in known:
            raise refused(name, f"{str(value)[:40]!r}; expected one of {', '.join(known)}")
        return str(value)

    def rename(self, old: str, new: str, fields: dict[str, Schema]) -> None:
        """`old` is another name for `new`, which the function has."""
        if old in self._left and old not in fields:
            self._left.setdefault(new, self._left.pop(old))

    def payload(self, target: Target, **own: Any) -> dict[str, Any]:
        """The payload: `own` fields, and every parameter that the function has a field for. `RequestError` 400 for a
        parameter without a field.
        """
        fields = target.fields
        found = dict(own)
        for name, value in self._left.items():
            if name in fields:
                found[name] = (
                    [value] if isinstance(value, str) and takes(fields[name], "array") and not takes(fields[name], "string") else value
                )
            elif name not in HINTS and not _is_default(name, value):
                known = f"{did_you_mean(name, fields)} It takes: {', '.join(fields)}"
                raise refused(name, f"function {target.name!r} has no such field, so it would be ignored.{known}")
        return found


def _is_default(name: str, value: Any) -> bool:
    return any(value == default and isinstance(value, bool) == isinstance(default, bool) for default in DEFAULTS.get(name, ()))


def takes(schema: Any, kind: str) -> bool:
    """Whether a field accepts this JSON type."""
    if not isinstance(schema, dict):
        return False
    branches = schema.get("anyOf") or schema.get("oneOf")
    return any(takes(branch, kind) for branch in branches) if branches else schema.get("type") == kind
