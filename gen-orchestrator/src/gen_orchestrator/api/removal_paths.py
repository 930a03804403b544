"""The operations that delete releases, for the OpenAPI document."""

from gen_orchestrator.api.operations import NUMBER, TEXT, list_of, object_of, operation, path, statuses
from gen_orchestrator.domain.pruning import MAX_KEEP
from gen_worker.http.components import Schema
from gen_worker.http.openapi import json_response

_SECONDS: Schema = {"type": "number"}
_DELETED = object_of(
    "release_id owner endpoint message created_at deleted_at cleared freed_bytes",
    **dict.fromkeys(("release_id", "owner", "endpoint", "message"), TEXT),
    created_at=_SECONDS,
    deleted_at=_SECONDS,
    cleared={"type": "boolean"},
    freed_bytes=NUMBER,
)
_PRUNE: Schema = {
    **object_of("keep", keep={**NUMBER, "maximum": MAX_KEEP}, owner=TEXT, endpoint=TEXT, dry_run={"type": "boolean", "default": False}),
    "additionalProperties": False,
}
_PRUNED: Schema = list_of({**_DELETED, "required": ["release_id"]})
_PRUNED["properties"]["freed_bytes"] = NUMBER


def removal_paths() -> dict[str, Schema]:
    """Paths of the prune. The delete of one release is beside its path's other methods (`delete_release`)."""
    body: Schema = {"required": True, "content": {"application/json": {"schema": _PRUNE}}}
    found = {"200": json_response("The deleted releases, oldest first", _PRUNED)}
    return {"/v1/releases/prune": {"post": operation("prune_releases", "Delete all but the newest releases", found, body=body)}}


def delete_release() -> Schema:
    answers = {"200": json_response("The deleted release", _DELETED), **statuses("409")}
    return operation("delete_release", "Delete an unused release", answers, path("release_id"))
