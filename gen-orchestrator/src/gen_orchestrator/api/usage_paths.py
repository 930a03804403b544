"""The operation on usage, for the OpenAPI document."""

from gen_orchestrator.api.operations import NUMBER, TEXT, object_of, operation
from gen_worker.http.components import Schema
from gen_worker.http.openapi import json_response

_SUM: Schema = {"type": "number", "minimum": 0}
_USED: dict[str, Schema] = {
    **dict.fromkeys(("runs", "failed", "downloaded_bytes", "loaded_bytes", "unpriced"), NUMBER),
    **dict.fromkeys(("gpu_seconds", "cpu_seconds", "cold_seconds"), _SUM),
    "cold_share": {**_SUM, "maximum": 1},
    "cost": {"anyOf": [_SUM, {"type": "null"}]},
}
_SUMS = object_of(" ".join(_USED), **_USED)
_GROUP: Schema = {**_SUMS, "properties": {**_USED, **dict.fromkeys(("day", "key", "name", "function"), TEXT)}}
_USAGE = object_of(
    "from to by of currency data total",
    **{"from": TEXT, "to": TEXT, "by": TEXT},
    of={"type": "string", "enum": ["owner", "key"]},
    currency={"anyOf": [TEXT, {"type": "null"}]},
    data={"type": "array", "items": _GROUP},
    total=_SUMS,
)


def usage_paths() -> dict[str, Schema]:
    """The path of usage."""
    query = ("from", "to", "by", "owner")
    return {
        "/v1/usage": {"get": operation("get_usage", "Get the usage of runs", {"200": json_response("Sums by day", _USAGE)}, query=query)}
    }
