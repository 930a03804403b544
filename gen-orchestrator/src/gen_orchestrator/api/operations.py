"""Building blocks for operations of an OpenAPI document."""

from typing import Any

from gen_worker.http.components import Schema
from gen_worker.http.openapi import PROBLEMS, problem_response

TEXT: Schema = {"type": "string"}
NUMBER: Schema = {"type": "integer", "minimum": 0}
BYTES: Schema = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
QUERY: dict[str, Schema] = {
    "wait": {**NUMBER, "maximum": 3600},
    "limit": {"type": "integer", "minimum": 1, "maximum": 500},
    "status": {"type": "string", "enum": ["queued", "starting", "running", "succeeded", "failed", "canceled", "expired"]},
    "deleted": {"type": "string", "enum": ["true", "false"]},
    "include": {"type": "string", "enum": ["input"]},
}


def object_of(required: str, **properties: Schema) -> Schema:
    return {"type": "object", "required": required.split(), "properties": properties}


def list_of(item: Schema) -> Schema:
    return object_of("data", data={"type": "array", "items": item})


def statuses(*statuses: str) -> Schema:
    return {status: problem_response(PROBLEMS.get(status, "The current state does not allow it")) for status in statuses}


def path(name: str, schema: Schema = TEXT) -> Schema:
    return {"name": name, "in": "path", "required": True, "schema": schema}


def operation(
    name: str, summary: str, responses: Schema, *parameters: Schema, query: tuple[str, ...] = (), body: Schema | None = None
) -> Schema:
    optional = [{"name": each, "in": "query", "required": False, "schema": QUERY.get(each, TEXT)} for each in query]
    found: dict[str, Any] = {
        "operationId": name,
        "tags": ["api"],
        "summary": summary,
        "parameters": [*parameters, *optional],
        "responses": {**statuses("400", "401", "403", "404", "421"), **responses},
    }
    return {**found, "requestBody": body} if body is not None else found
