"""OpenAPI 3.1 from the manifests of the releases that tags point at: one operation a function and tag, beside the API's own routes.

Each status has the schema of its real body. A failed run is a run with an `error`; a request that started no run is answered with a
problem. Statuses that may be either list both, with both media types: client generators take the first one that they know.
"""

from typing import Any

from gen_orchestrator import __version__
from gen_orchestrator.api.own_paths import own_paths
from gen_orchestrator.domain.runs import PRIORITIES
from gen_orchestrator.domain.webhooks import EVENTS
from gen_orchestrator.hub.registry import PROD, NotFoundError, Registry
from gen_orchestrator.store.base import Tag
from gen_worker.contract.manifest import FunctionEntry, WebsocketEntry
from gen_worker.contract.problem import Problem
from gen_worker.contract.run import RunObject, RunPage
from gen_worker.errors import FieldError
from gen_worker.http.components import REF, Components, Schema
from gen_worker.http.openapi import EITHER, PROBLEMS, json_response, problem_response
from gen_worker.project.schemas import schema_components

_PARAMETERS: list[Schema] = [
    {
        "name": "idempotency-key",
        "in": "header",
        "schema": {"type": "string"},
        "description": "The same key and request return the same run",
    },
    {
        "name": "prefer",
        "in": "header",
        "schema": {"type": "string"},
        "description": "`respond-async`, or `wait=SECONDS` (60 without it): answer 202 with a run to follow (RFC 7240)",
    },
]
_SECONDS: Schema = {"type": "number", "minimum": 0, "maximum": 604800}
_OPTIONS: Schema = {
    "timeout_s": {**_SECONDS, "description": "The run is stopped after this time; 0: the function's own limit"},
    "start_timeout_s": {**_SECONDS, "description": "The run expires if it has not started after this time; 0: the function's own limit"},
    "priority": {"type": "string", "enum": list(PRIORITIES), "default": "normal"},
    "webhook": {"type": "string", "description": "A URL to notify about the run (Standard Webhooks)"},
    "webhook_events": {"type": "array", "items": {"type": "string", "enum": list(EVENTS)}},
}


def document(registry: Registry, owner: str = "") -> dict[str, Any]:
    """The document with the functions of one owner, "" for all. Functions with the tag `prod` have the plain path, others `:tag`."""
    _, schemas = schema_components([RunObject, RunPage, Problem, FieldError], REF)
    components = Components(schemas)
    run_schema = schemas["RunObject"]
    paths: dict[str, Any] = {}
    sockets = []
    for tag in registry.tags(owner):
        try:
            manifest = registry.manifest(tag.release_id)
        except NotFoundError:  # its row is damaged; calls report it
            continue
        sockets += [_websocket(tag, entry) for entry in manifest.websockets or () if entry.name == tag.function]
        for entry in manifest.functions:
            if entry.name == tag.function:
                suffix = "" if tag.tag == PROD else f":{tag.tag}"
                name = f"{tag.endpoint}_{tag.function}{'' if tag.tag == PROD else '_' + tag.tag}".replace("-", "_")
                path = f"/v1/{tag.owner}/{tag.endpoint}/{tag.function}{suffix}"
                paths[path] = {"post": _invoke(entry, name, components, run_schema)}
    return {
        "openapi": "3.1.0",
        "info": {"title": "gen-orchestrator", "version": __version__},
        "paths": dict(sorted({**paths, **own_paths()}.items())),
        "components": {"schemas": components.schemas},
        "x-websockets": sockets,
    }


def _websocket(tag: Tag, entry: WebsocketEntry) -> dict[str, str]:
    """OpenAPI has no notation for a websocket. `name` is the handler's; clients connect to `path`."""
    suffix = "" if tag.tag == PROD else f":{tag.tag}"
    path = f"/v1/{tag.owner}/{tag.endpoint}/{tag.function}{suffix}"
    return {"name": entry.name, "path": path, "description": entry.description or ""}


def _invoke(entry: FunctionEntry, name: str, components: Components, run_schema: Schema) -> Schema:
    payload, output = components.adopt(entry.input_schema), components.adopt(entry.output_schema)
    words = "".join(part.capitalize() for part in name.split("_"))
    request = components.add(f"{words}Request", {"type": "object", "required": ["payload"], "properties": {"payload": payload, **_OPTIONS}})
    shown: Schema = {"anyOf": [output, {"type": "null"}]} if not entry.incremental_output else {"type": "null"}
    properties = {**run_schema["properties"], "output": shown, "input": {"anyOf": [payload, {"type": "null"}]}}
    if entry.incremental_output:
        properties["outputs"] = {"anyOf": [{"type": "array", "items": output}, {"type": "null"}]}
    run = components.add(f"{words}Run", {**run_schema, "properties": properties})
    done = json_response("The successful run", run)
    done["content"]["text/event-stream"] = {"x-event-data": {"output": output}}
    done["content"]["application/x-ndjson"] = {"schema": {"type": "string"}}
    either = {"anyOf": [run, {"$ref": REF.format(name="Problem")}]}
    responses: Schema = {status: json_response(text, either, "application/problem+json") for status, text in EITHER.items()}
    responses |= {status: problem_response(text) for status, text in PROBLEMS.items()}
    content: Schema = {"application/json": {"schema": request}}
    if "Asset" in entry.input_schema.get("$defs", {}) or '"contentEncoding"' in str(entry.input_schema):
        form = {"type": "object", "properties": {"payload": {"type": "string", "description": "The payload's JSON, without its files"}}}
        content["multipart/form-data"] = {"schema": form}
    return {
        "operationId": name,
        "tags": ["functions"],
        "summary": f"Run {entry.name}",
        "parameters": _PARAMETERS,
        "requestBody": {"required": True, "content": content},
        "x-output": output,
        "x-output-mode": entry.output_mode,
        "responses": {"200": done, "202": json_response("The run continues", run), **responses},
    }
