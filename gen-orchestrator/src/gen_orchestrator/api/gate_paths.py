"""The operations on golden requests and gates, for the OpenAPI document."""

from gen_orchestrator.api.operations import TEXT, list_of, object_of, operation, path, statuses
from gen_worker.http.components import Schema
from gen_worker.http.openapi import json_response

_TOLERANCE: Schema = {"type": "number", "minimum": 0, "maximum": 1}
_GOLDEN = object_of(
    "golden_id owner endpoint function run_id tolerance created_at",
    **dict.fromkeys(("golden_id", "owner", "endpoint", "function", "run_id"), TEXT),
    tolerance=_TOLERANCE,
    created_at={"type": "number"},
)
_GATE_RESULT = object_of(
    "kind function subject passed at detail",
    **dict.fromkeys(("function", "subject"), TEXT),
    kind={"type": "string", "enum": ["golden", "canary", "shadow"]},
    passed={"type": "boolean"},
    at={"type": "number"},
    detail={"type": "object"},
)
_GATES = object_of("release_id data", release_id=TEXT, data={"type": "array", "items": _GATE_RESULT})
_CHECKED: Schema = {**_GATES, "properties": {**_GATES["properties"], "passed": {"type": "boolean"}}}


def gate_paths() -> dict[str, Schema]:
    """Paths of golden requests and gate results."""
    return {
        "/v1/releases/{release_id}/gates": {
            "get": operation(
                "get_gates", "Get gate results", {"200": json_response("The latest result of each gate", _GATES)}, path("release_id")
            )
        },
        "/v1/releases/{release_id}/goldens": {
            "post": operation(
                "check_goldens",
                "Run golden requests against a release",
                {"200": json_response("The result of each", _CHECKED)},
                path("release_id"),
                body=_optional(object_of("", functions={"type": "array", "items": TEXT})),
            )
        },
        "/v1/runs/{run_id}/golden": {
            "post": operation(
                "add_golden",
                "Make a golden request from a run",
                {"201": json_response("The golden request", _GOLDEN), **statuses("409")},
                path("run_id"),
                body=_optional(object_of("", tolerance=_TOLERANCE)),
            )
        },
        "/v1/goldens": {
            "get": operation(
                "list_goldens",
                "List golden requests, oldest first",
                {"200": json_response("Golden requests", list_of(_GOLDEN))},
                query=("owner", "endpoint"),
            )
        },
        "/v1/goldens/{golden_id}": {
            "delete": operation(
                "delete_golden", "Delete a golden request", {"200": json_response("The deleted golden request", _GOLDEN)}, path("golden_id")
            )
        },
    }


def _optional(schema: Schema) -> Schema:
    return {"required": False, "content": {"application/json": {"schema": schema}}}
