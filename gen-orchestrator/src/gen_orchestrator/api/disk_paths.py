"""The routes about the platform's disk, for the OpenAPI document."""

from gen_orchestrator.api.operations import NUMBER, TEXT, object_of, operation, statuses
from gen_orchestrator.hub.disk_report import KINDS
from gen_worker.http.components import Schema
from gen_worker.http.openapi import json_response

_FREEABLE = object_of("command size_bytes what", command=TEXT, size_bytes=NUMBER, what=TEXT)
_REPORT = object_of(
    "folder size_bytes free_bytes bytes freeable",
    folder=TEXT,
    size_bytes=NUMBER,
    free_bytes=NUMBER,
    bytes=object_of(" ".join(KINDS), **dict.fromkeys(KINDS, NUMBER)),
    freeable={"type": "array", "items": _FREEABLE},
)


def disk_paths() -> dict[str, Schema]:
    """The paths of these routes."""
    answers = {"200": json_response("By kind, and which command gives how much back", _REPORT), **statuses("503")}
    return {"/v1/disk": {"get": operation("get_disk", "What the data folder takes", answers)}}
