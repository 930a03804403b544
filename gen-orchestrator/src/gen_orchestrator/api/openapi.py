"""OpenAPI 3.1 from the manifests of the releases that tags point at: one operation a function and tag."""

from typing import Any

from gen_orchestrator import __version__
from gen_orchestrator.hub.registry import PROD, Registry
from gen_worker.contract.manifest import FunctionEntry
from gen_worker.contract.problem import Problem
from gen_worker.contract.run import RunObject, RunPage
from gen_worker.project.schemas import schema_components

REF = "#/components/schemas/{name}"
_PROBLEMS = {
    "400": "The payload or an option is wrong",
    "404": "No such function or tag",
    "413": "The body is too large",
    "422": "The Idempotency-Key was used for another request",
    "429": "Too much waits already",
    "503": "Try again",
    "504": "The run took too long",
}


def document(registry: Registry) -> dict[str, Any]:
    """The document. Functions at `prod` have the plain path, others `:tag`."""
    (run_ref, page_ref, problem_ref), components = schema_components([RunObject, RunPage, Problem], REF)
    paths: dict[str, Any] = {}
    for tag in registry.tags():
        for entry in registry.manifest(tag.release_id).functions:
            if entry.name == tag.function:
                suffix = "" if tag.tag == PROD else f":{tag.tag}"
                name = f"{tag.endpoint}_{tag.function}{'' if tag.tag == PROD else '_' + tag.tag}".replace("-", "_")
                payload = _component(components, f"{name}_input", entry.input_schema)
                output = _component(components, f"{name}_output", entry.output_schema)
                paths[f"/v1/{tag.owner}/{tag.endpoint}/{tag.function}{suffix}"] = {
                    "post": _invoke(entry, name, payload, output, run_ref, problem_ref)
                }
    paths |= _run_paths(run_ref, page_ref, problem_ref)
    return {
        "openapi": "3.1.0",
        "info": {"title": "gen-orchestrator", "version": __version__},
        "paths": dict(sorted(paths.items())),
        "components": {"schemas": components},
    }


def _component(components: dict[str, Any], prefix: str, schema: dict[str, Any]) -> dict[str, Any]:
    """Move a manifest's schema into the document's components, under names that no other function has."""
    schema = dict(schema)  # of the manifest, which stays as it is
    definitions = schema.pop("$defs", {})

    def moved(value: Any) -> Any:
        if isinstance(value, dict):
            return {
                key: REF.format(name=f"{prefix}_{each.removeprefix('#/$defs/')}") if key == "$ref" else moved(each)
                for key, each in value.items()
            }
        return [moved(each) for each in value] if isinstance(value, list) else value

    for name, definition in definitions.items():
        components[f"{prefix}_{name}"] = moved(definition)
    found: dict[str, Any] = moved(schema)
    return found


def _invoke(
    entry: FunctionEntry, name: str, payload: dict[str, Any], output: dict[str, Any], run: dict[str, Any], problem: dict[str, Any]
) -> dict[str, Any]:
    envelope = {
        "type": "object",
        "required": ["payload"],
        "properties": {
            "payload": payload,
            "timeout_s": {"type": "number", "minimum": 0},
            "start_timeout_s": {"type": "number", "minimum": 0},
            "priority": {"enum": ["high", "normal", "low"]},
            "webhook": {"type": "string"},
            "webhook_events": {"type": "array", "items": {"type": "string"}},
        },
    }
    return {
        "operationId": name,
        "summary": entry.name,
        "parameters": [
            {"name": "Idempotency-Key", "in": "header", "schema": {"type": "string"}, "description": "The same key gives the same run"},
            {"name": "Prefer", "in": "header", "schema": {"type": "string"}, "description": "respond-async, or wait=SECONDS"},
        ],
        "requestBody": {"required": True, "content": {"application/json": {"schema": envelope}}},
        "x-output": output,
        "x-incremental-output": entry.incremental_output,
        "responses": {
            "200": {"description": "The run, finished", "content": {"application/json": {"schema": run}}},
            "202": {"description": "The run goes on", "content": {"application/json": {"schema": run}}},
            **_problems(problem),
        },
    }


def _problems(problem: dict[str, Any]) -> dict[str, Any]:
    content = {"application/problem+json": {"schema": problem}}
    return {status: {"description": text, "content": content} for status, text in _PROBLEMS.items()}


def _run_paths(run: dict[str, Any], page: dict[str, Any], problem: dict[str, Any]) -> dict[str, Any]:
    run_id = {"name": "run_id", "in": "path", "required": True, "schema": {"type": "string"}}
    missing = {"404": {"description": "No such run", "content": {"application/problem+json": {"schema": problem}}}}
    one = {"200": {"description": "The run", "content": {"application/json": {"schema": run}}}, **missing}
    wait = {"name": "wait", "in": "query", "schema": {"type": "integer", "minimum": 0}}
    filters = [
        {"name": name, "in": "query", "schema": {"type": "string"}} for name in ("status", "function", "endpoint", "owner", "cursor")
    ]
    stream = {"200": {"description": "Events", "content": {"text/event-stream": {"schema": {"type": "string"}}}}, **missing}
    found = {"200": {"description": "Runs, newest first", "content": {"application/json": {"schema": page}}}}
    return {
        "/v1/runs": {"get": {"operationId": "list_runs", "parameters": filters, "responses": found}},
        "/v1/runs/{run_id}": {"get": {"operationId": "get_run", "parameters": [run_id, wait], "responses": one}},
        "/v1/runs/{run_id}/events": {"get": {"operationId": "run_events", "parameters": [run_id], "responses": stream}},
        "/v1/runs/{run_id}/cancel": {"post": {"operationId": "cancel_run", "parameters": [run_id], "responses": one}},
        "/v1/runs/{run_id}/retry": {
            "post": {
                "operationId": "retry_run",
                "parameters": [run_id],
                "responses": {"202": {"description": "The new run", "content": {"application/json": {"schema": run}}}, **missing},
            }
        },
    }
