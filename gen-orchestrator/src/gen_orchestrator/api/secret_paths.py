"""The operations on secrets, for the OpenAPI document."""

from gen_orchestrator.api.operations import NUMBER, TEXT, object_of, operation, path
from gen_worker.http.components import Schema
from gen_worker.http.openapi import json_response

_BOOLEAN: Schema = {"type": "boolean"}
_SECRET = object_of(
    "name version set_at set_by readable declared",
    **dict.fromkeys(("name", "set_by"), TEXT),
    version=NUMBER,
    set_at={"type": "number"},
    **dict.fromkeys(("readable", "declared"), _BOOLEAN),
)
_REMOVED = object_of("name removed", name=TEXT, removed=_BOOLEAN)
_SECRETS = object_of("data missing", data={"type": "array", "items": _SECRET}, missing={"type": "array", "items": TEXT})


def secret_paths() -> dict[str, Schema]:
    """Paths of secrets."""
    endpoint = [path("owner"), path("endpoint")]
    return {
        "/v1/endpoints/{owner}/{endpoint}/secrets": {
            "get": operation("list_secrets", "List secrets", {"200": json_response("The secrets without values", _SECRETS)}, *endpoint)
        },
        "/v1/endpoints/{owner}/{endpoint}/secrets/{name}": {
            "put": operation(
                "set_secret",
                "Set a secret of an endpoint's workers",
                {"200": json_response("The secret without its value", _SECRET)},
                *endpoint,
                path("name"),
                body={"required": True, "content": {"application/json": {"schema": object_of("value", value=TEXT)}}},
            ),
            "delete": operation(
                "remove_secret",
                "Delete a secret",
                {"200": json_response("The secret is deleted", _REMOVED)},
                *endpoint,
                path("name"),
            ),
        },
    }
