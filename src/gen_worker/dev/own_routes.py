"""Requests and answers of the dev runner's own routes, for its OpenAPI document."""

from typing import Any

from gen_worker.contract.runner import RUNNER_STATUSES
from gen_worker.front_doors.openapi import door_paths
from gen_worker.http.components import REF, Schema
from gen_worker.http.openapi import PROBLEMS, json_response, problem_response

RUN: Schema = {"$ref": REF.format(name="RunnerRun")}
_RUN_ID: Schema = {"name": "run_id", "in": "path", "required": True, "schema": {"type": "string"}}
_OK: Schema = {"type": "object", "required": ["ok"], "properties": {"ok": {"type": "boolean"}}}
_CACHE: Schema = {"type": "object", "description": "The model cache: what is loaded, and how much room there is"}
_MODEL_ID: Schema = {"type": "object", "required": ["model_id"], "properties": {"model_id": {"type": "string"}}}
_LOADED: Schema = {
    "type": "object",
    "required": ["ok", "error_message"],
    "properties": {"ok": {"type": "boolean"}, "error_message": {"type": "string"}},
}
_PREFETCHED: Schema = {
    "type": "object",
    "required": ["results"],
    "properties": {
        "results": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["duration_ms", "model_id", "ok"],
                "properties": {
                    "duration_ms": {"type": "integer"},
                    "model_id": {"type": "string"},
                    "ok": {"type": "boolean"},
                    "error_type": {"type": "string"},
                    "error_message": {"type": "string"},
                },
            },
        }
    },
}
_STATUS: Schema = {
    "type": "object",
    "required": ["code", "functions", "model_cache", "ok", "runs", "threads_left", "uptime_s", "version", "websockets"],
    "properties": {
        "code": {
            "type": "object",
            "description": "`revision` grows with each state of the code that is seen; `problem` says why the last one is not served",
            "required": ["problem", "revision"],
            "properties": {"problem": {"type": ["string", "null"]}, "revision": {"type": "integer"}},
        },
        "functions": {"type": "array", "items": {"type": "string"}},
        "model_cache": _CACHE,
        "ok": {"type": "boolean"},
        "runs": {
            "type": "object",
            "required": ["active", "queued"],
            "properties": {"active": {"type": "integer"}, "queued": {"type": "integer"}},
        },
        "threads_left": {"type": "array", "items": {"type": "object"}},
        "uptime_s": {"type": "number"},
        "version": {"type": "string"},
        "websockets": {"type": "array", "items": {"type": "string"}},
    },
}
_LIST: Schema = {
    "type": "object",
    "required": ["data", "next_cursor"],
    "properties": {"data": {"type": "array", "items": RUN}, "next_cursor": {"anyOf": [{"type": "string"}, {"type": "null"}]}},
}


def own_routes() -> dict[str, Schema]:
    """Paths of the runner itself. All may answer with a problem."""
    binary = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
    page = {"200": {"description": "The console", "content": {"text/html": {"schema": {"type": "string"}}}}}
    events = {"description": "Numbered events, and `done` with the run", "content": {"text/event-stream": {}}}
    document = json_response("This document", {"type": "object"})
    return {
        "/v1/runs": _get(
            "list_runs", "List runs, newest first", json_response("A page of runs", _LIST), query=("status", "function", "cursor")
        ),
        "/v1/runs/{run_id}": _get("get_run", "Get a run", json_response("The run", RUN), _RUN_ID, query=("wait",)),
        "/v1/runs/{run_id}/events": _get(
            "follow_run",
            "Follow a run's events",
            events,
            _RUN_ID,
            query=("after", "events"),
            more={"204": {"description": "All events were seen"}},
        ),
        "/v1/runs/{run_id}/cancel": {"post": _operation("cancel_run", "Cancel a run", {"200": json_response("The run", RUN)}, [_RUN_ID])},
        "/v1/files/{ref}": _get(
            "get_file",
            "Download a saved file",
            {"description": "Its bytes", "content": binary},
            {"name": "ref", "in": "path", "required": True, "schema": {"type": "string"}},
            more={"206": {"description": "A range of its bytes", "content": binary}},
        ),
        "/v1/status": _get("get_status", "Show the current state", json_response("The runner's state", _STATUS)),
        "/v1/models/status": _get(
            "get_models_status",
            "Show the model cache",
            json_response(
                "The cache and running downloads and loads",
                {"type": "object", "required": ["model_cache", "ok"], "properties": {"model_cache": _CACHE, "ok": {"type": "boolean"}}},
            ),
        ),
        "/v1/models/prefetch": _post(
            "prefetch_models",
            "Download models to the disk",
            {"type": "object", "required": ["models"], "properties": {"models": {"type": "array", "items": {}}}},
            _PREFETCHED,
        ),
        "/v1/models/load": _post("load_model", "Load a model", _MODEL_ID, _LOADED),
        "/v1/models/unload": _post("unload_model", "Unload a model", _MODEL_ID, _LOADED),
        **door_paths("/v1/models/{model}"),
        "/livez": _get("get_livez", "Check that the process is alive", json_response("It is", _OK)),
        "/readyz": _get(
            "get_readyz", "Check that it can run functions", json_response("It can", _OK), more={"503": problem_response("It cannot yet")}
        ),
        "/openapi.json": _get("get_openapi", "This document", document),
        "/": {"get": {"operationId": "get_root", "tags": ["page"], "summary": "The console", "responses": page}},
        "/docs": {"get": {"operationId": "get_docs", "tags": ["page"], "summary": "The console", "responses": page}},
    }


def _get(name: str, summary: str, answer: Schema, *parameters: Schema, query: tuple[str, ...] = (), more: Schema | None = None) -> Schema:
    optional = [{"name": each, "in": "query", "required": False, "schema": _query_schema(each)} for each in query]
    return {"get": _operation(name, summary, {"200": answer, **(more or {})}, [*parameters, *optional])}


def _post(name: str, summary: str, body: Schema, answer: Schema) -> Schema:
    found = _operation(name, summary, {"200": json_response("The result, or why it failed", answer)}, [])
    return {"post": {**found, "requestBody": {"required": True, "content": {"application/json": {"schema": body}}}}}


def _operation(name: str, summary: str, responses: Schema, parameters: list[Any]) -> Schema:
    problems = {status: problem_response(PROBLEMS.get(status, "The request is wrong")) for status in ("400", "403", "404", "421")}
    return {"operationId": name, "tags": ["runner"], "summary": summary, "parameters": parameters, "responses": {**problems, **responses}}


def _query_schema(name: str) -> Schema:
    if name == "status":
        return {"type": "string", "enum": list(RUNNER_STATUSES)}
    return {"type": "integer", "minimum": 0} if name in ("wait", "after") else {"type": "string"}
