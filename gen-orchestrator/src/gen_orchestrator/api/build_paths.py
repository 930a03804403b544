"""The operations on builds, for the OpenAPI document."""

from gen_orchestrator.api.operations import BYTES, NUMBER, TEXT, list_of, object_of, operation, path, statuses
from gen_worker.http.components import Schema
from gen_worker.http.openapi import json_response

_BUILD = object_of(
    "build_id owner status message endpoint release_id error created_at finished_at",
    **dict.fromkeys(("build_id", "owner", "message", "endpoint", "release_id", "error"), TEXT),
    status={"type": "string", "enum": ["queued", "running", "succeeded", "failed", "canceled"]},
    existed={"type": "boolean"},
    created_at={"type": "number"},
    finished_at={"type": "number"},
)
_BUILD_LOG = object_of(
    "build_id status lines next",
    build_id=TEXT,
    status=_BUILD["properties"]["status"],
    lines={"type": "array", "items": object_of("n at text", n=NUMBER, at={"type": "number"}, text=TEXT)},
    next=NUMBER,
)


def build_paths() -> dict[str, Schema]:
    """Paths of publishing and of builds."""
    return {
        "/v1/endpoints/publish": {
            "post": operation(
                "publish",
                "Publish a project",
                {"202": json_response("The build, which continues", _BUILD), **statuses("413", "415", "429", "507")},
                query=("message", "builder", "image"),
                body={"required": False, "content": BYTES},
            )
        },
        "/v1/builds": {
            "get": operation(
                "list_builds", "List builds, newest first", {"200": json_response("Builds", list_of(_BUILD))}, query=("owner",)
            )
        },
        "/v1/builds/{build_id}": {
            "get": operation("get_build", "Get a build", {"200": json_response("The build", _BUILD)}, path("build_id"), query=("wait",))
        },
        "/v1/builds/{build_id}/logs": {
            "get": operation(
                "get_build_logs",
                "Read a build's log",
                {"200": json_response("Lines", _BUILD_LOG)},
                path("build_id"),
                query=("after", "wait"),
            )
        },
        "/v1/builds/{build_id}/cancel": {
            "post": operation("cancel_build", "Cancel a build", {"200": json_response("The build", _BUILD)}, path("build_id"))
        },
    }
