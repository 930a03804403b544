"""Functions to an OpenAPI 3.1 document: one operation for each, with the author's own descriptions and examples."""

import inspect
from collections.abc import Sequence
from typing import Any

import msgspec

from gen_worker.authoring.signature import FunctionSpec
from gen_worker.errors import FieldError
from gen_worker.http.problems import Problem
from gen_worker.project.schemas import schema_components

REF = "#/components/schemas/{name}"
_STATUSES = {
    "400": "The payload is wrong",
    "404": "No such function",
    "413": "The body is too large",
    "503": "Try again",
    "504": "Timed out",
}


def openapi_document(specs: Sequence[FunctionSpec], title: str, version: str) -> dict[str, Any]:
    """The document. Each run route takes the bare payload or an envelope, and answers with the run."""
    structs: list[type[msgspec.Struct]] = [struct for spec in specs for struct in (spec.payload_type, spec.output_type)]
    refs, components = schema_components([*structs, Problem, FieldError], REF)
    paths = {}
    for index, spec in enumerate(specs):
        paths[f"/v1/run/{spec.name}"] = {"post": _operation(spec, refs[2 * index], refs[2 * index + 1], refs[-2])}
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": version},
        "paths": dict(sorted(paths.items())),
        "components": {"schemas": components},
    }


def _operation(spec: FunctionSpec, payload: dict[str, Any], output: dict[str, Any], problem: dict[str, Any]) -> dict[str, Any]:
    text = inspect.getdoc(spec.function) or ""
    incremental = spec.output_mode == "incremental"
    answer = {
        "type": "object",
        "required": ["run_id", "success", "output", "events", "timing_ms", "error_type", "safe_message", "error_message"],
        "properties": {
            "run_id": {"type": "string"},
            "success": {"type": "boolean"},
            "output": {"type": "null"} if incremental else {"anyOf": [output, {"type": "null"}]},
            "error_type": {"type": "string"},
            "safe_message": {"type": "string"},
            "error_message": {"type": "string"},
            "events": {"type": "array", "items": {"type": "object"}},
            "timing_ms": {"type": "object", "properties": {"total_ms": {"type": "integer"}}},
        },
    }
    content: dict[str, Any] = {"application/json": {"schema": answer}}
    if incremental:
        content["text/event-stream"] = {"schema": {"type": "string"}, "x-event-data": {"output": output}}
    return {
        "operationId": spec.python_name,
        "summary": text.partition("\n")[0] or spec.name,
        "description": text,
        "x-output-mode": spec.output_mode,
        "x-output": output,
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {"anyOf": [payload, {"type": "object", "required": ["payload"], "properties": {"payload": payload}}]}
                },
                "multipart/form-data": {"schema": {"type": "object", "properties": {"payload": payload}}},
            },
        },
        "responses": {
            "200": {"description": "The run", "content": content},
            **{
                status: {"description": text, "content": {"application/problem+json": {"schema": problem}}}
                for status, text in _STATUSES.items()
            },
        },
    }
