"""The operations on shadow runs, for the OpenAPI document."""

from gen_orchestrator.api.operations import NUMBER, TEXT, list_of, object_of, operation, path, statuses
from gen_worker.http.components import Schema
from gen_worker.http.openapi import json_response

_SECONDS: Schema = {"type": "number", "minimum": 0}
_QUANTILE: Schema = {"anyOf": [_SECONDS, {"type": "null"}]}
_SIDE = object_of("p50 p95", p50=_QUANTILE, p95=_QUANTILE)
_SHARE: Schema = {"type": "number", "minimum": 0, "maximum": 1}
_PERCENT: Schema = {"type": "number", "exclusiveMinimum": 0, "maximum": 100}
_EXAMPLE = object_of(
    "run_id error differences tag_s release_s",
    **dict.fromkeys(("run_id", "error"), TEXT),
    differences={"type": "array", "items": {"type": "object"}},
    tag_s=_SECONDS,
    release_s=_SECONDS,
)
_NAMES = "owner endpoint function tag release_id against why"
_COUNTS = "runs compared equal different failed dropped by_digest"
SHADOW = object_of(
    f"{_NAMES} {_COUNTS} percent tolerance since ended_at passed seconds images examples",
    **dict.fromkeys(_NAMES.split(), TEXT),
    **dict.fromkeys(_COUNTS.split(), NUMBER),
    **dict.fromkeys(("since", "ended_at"), _SECONDS),
    percent=_PERCENT,
    tolerance=_SHARE,
    passed={"type": "boolean"},
    seconds=object_of("tag release", tag=_SIDE, release=_SIDE),
    images={"type": "string", "enum": ["pixels", "digests"]},
    examples={"type": "array", "items": _EXAMPLE},
)
_NEW: Schema = {
    **object_of(
        "release_id",
        release_id=TEXT,
        percent={**_PERCENT, "default": 10},
        tolerance={**_SHARE, "default": 0},
        runs={**NUMBER, "maximum": 1_000_000, "default": 0},
    ),
    "additionalProperties": False,
}


def shadow_paths() -> dict[str, Schema]:
    """Paths of shadow runs."""
    name: Schema = {"type": "string", "pattern": "^[a-z0-9][a-z0-9._-]{0,63}$"}
    tag = [path("owner"), path("endpoint"), path("function"), path("tag", name)]
    return {
        "/v1/shadows": {
            "get": operation(
                "list_shadows",
                "List the last shadow of each tag",
                {"200": json_response("Shadows", list_of(SHADOW))},
                query=("owner", "endpoint"),
            )
        },
        "/v1/endpoints/{owner}/{endpoint}/functions/{function}/tags/{tag}/shadow": {
            "get": operation("get_shadow", "Get the results of shadow runs", {"200": json_response("The shadow", SHADOW)}, *tag),
            "put": operation(
                "start_shadow",
                "Start shadow runs of a tag on a release",
                {"200": json_response("The shadow", SHADOW), **statuses("409")},
                *tag,
                body={"required": True, "content": {"application/json": {"schema": _NEW}}},
            ),
            "delete": operation("stop_shadow", "Stop shadow runs", {"200": json_response("The shadow", SHADOW), **statuses("409")}, *tag),
        },
    }
