"""Functions to an OpenAPI 3.1 document: one operation for each, with the author's own descriptions and examples.

Every status has the schema of what is really sent with it. A failed run keeps its body, and what never became a run is a problem; so the
statuses that may be either have both, under both media types: generators of clients take the first one that they know.
"""

import inspect
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import msgspec

from gen_worker.authoring.assets import holds_assets
from gen_worker.authoring.signature import FunctionSpec
from gen_worker.errors import FieldError
from gen_worker.http.problems import Problem
from gen_worker.project.schemas import schema_components, with_choices

Schema = dict[str, Any]
REF = "#/components/schemas/{name}"
EITHER = {
    "400": "The payload is wrong, or the request",
    "401": "The function could not authenticate where it had to",
    "409": "The run was canceled, or its id is taken",
    "500": "The function or the runner failed",
    "503": "Try again",
    "504": "The run took too long",
}
PROBLEMS = {
    "403": "A page of another site asked",
    "404": "There is no such thing",
    "408": "The request came too slowly",
    "413": "The body is too large",
    "415": "The body is coded",
    "421": "The request names another host",
    "422": "The Idempotency-Key came before with another request",
    "429": "Too many runs wait",
    "507": "The disk is full",
}
_RUN_PARAMETERS: list[Schema] = [
    {
        "name": "prefer",
        "in": "header",
        "schema": {"type": "string"},
        "description": "`respond-async`, `wait=SECONDS`: answer 202 with a run to follow (RFC 7240)",
    },
    {
        "name": "idempotency-key",
        "in": "header",
        "schema": {"type": "string"},
        "description": "The same key and request again give the same run",
    },
]
EVENT: Schema = {
    "type": "object",
    "title": "RunEvent",
    "required": ["event_type", "payload", "run_id"],
    "properties": {"event_type": {"type": "string"}, "payload": {}, "run_id": {"type": "string"}},
}
_FILES: Schema = {"type": "array", "items": {"type": "object"}, "description": "Saved files: ref, url, mime_type, size_bytes, sha256"}


def openapi_document(
    specs: Sequence[FunctionSpec],
    title: str,
    version: str,
    routes: Mapping[str, Schema],
    structs: Sequence[type[msgspec.Struct]] = (),
    model_keys: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> Schema:
    """The document. A run route takes the bare payload, and answers with the run; `routes` are the server's own paths, whose schemas
    refer to `structs` by name. `model_keys` by function: what a payload may select models by.
    """
    used: list[type[msgspec.Struct]] = [struct for spec in specs for struct in (spec.payload_type, spec.output_type)]
    refs, components = schema_components([*used, Problem, FieldError, *structs], REF)
    schemas = _Schemas(components)
    problem = refs[len(used)]
    event, failed = (
        schemas.add("RunEvent", EVENT),
        schemas.add("FailedRun", _answer({"output": {"type": "null"}, "outputs": {"type": "array", "items": {}}}, failed=True)),
    )
    either = {"anyOf": [failed, problem]}
    errors: Schema = {status: json_response(text, either, "application/problem+json") for status, text in EITHER.items()}
    errors |= {status: problem_response(text) for status, text in PROBLEMS.items()}
    paths: dict[str, Schema] = {}
    for index, spec in enumerate(specs):
        payload, output = refs[2 * index], refs[2 * index + 1]
        if spec.selecting_fields:
            name = payload["$ref"].rsplit("/", 1)[1]
            with_keys = with_choices(components[name], spec, model_keys.get(spec.name, ()))
            if [other.payload_type for other in specs].count(spec.payload_type) == 1:
                components[name] = with_keys
            else:  # another function may choose among other models
                payload = schemas.add(f"{name}Of{spec.python_name.title().replace('_', '')}", with_keys)
        name = "".join(part.capitalize() for part in spec.python_name.split("_"))
        answer = schemas.add(f"{name}Run", _answer(_outputs(spec, output), events=event))
        paths[f"/v1/run/{spec.name}"] = {"post": _operation(spec, payload, output, answer, errors)}
        paths[f"/v1/warmup/{spec.name}"] = {"post": _warm_up(spec, payload, errors)}
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": version},
        "paths": dict(sorted({**paths, **routes}.items())),
        "components": {"schemas": components},
    }


def json_response(text: str, schema: Schema, *also: str) -> Schema:
    """A response in JSON, under further media types, too."""
    return {"description": text, "content": {kind: {"schema": schema} for kind in ("application/json", *also)}}


def problem_response(text: str) -> Schema:
    return {"description": text, "content": {"application/problem+json": {"schema": {"$ref": REF.format(name="Problem")}}}}


class _Schemas:
    """Components; a name that an author has taken gets an underscore."""

    def __init__(self, components: dict[str, Schema]) -> None:
        self._components = components

    def add(self, name: str, schema: Schema) -> Schema:
        while name in self._components:
            name += "_"
        self._components[name] = {**schema, "title": name}
        return {"$ref": REF.format(name=name)}


def _outputs(spec: FunctionSpec, output: Schema) -> Schema:
    if spec.output_mode == "single":
        return {"output": output}
    items = {"type": "array", "items": output}
    listed = {**items, "description": "What the stream gave; null unless `application/json` is accepted by name"}
    return {"output": {"anyOf": [listed, {"type": "null"}]}, "outputs": items}


def _answer(outputs: Schema, *, events: Schema | None = None, failed: bool = False) -> Schema:
    """The runner contract's body. That of the runner's own failure has fewer keys, so fewer are sure in a failed run."""
    sure = ["run_id", "success", "error_type", "safe_message"]
    return {
        "type": "object",
        "required": sure
        if failed
        else [*sure, "error_message", "events", "output", "timing_ms", *(["outputs"] if "outputs" in outputs else [])],
        "properties": {
            "run_id": {"type": "string"},
            "success": {"type": "boolean"},
            "error_type": {"type": "string"},
            "safe_message": {"type": "string"},
            "error_message": {"type": "string"},
            "events": {"type": "array", "items": events or {"type": "object"}},
            "timing_ms": {"type": "object", "required": ["total_ms"], "properties": {"total_ms": {"type": "integer"}}},
            "files": _FILES,
            "warnings": {"type": "array", "items": {"$ref": REF.format(name="FieldError")}},
            **outputs,
            **(
                {
                    "code": {"type": "string"},
                    "retryable": {"type": "boolean"},
                    "errors": {"type": "array", "items": {"$ref": REF.format(name="FieldError")}},
                }
                if failed
                else {}
            ),
        },
    }


def _operation(spec: FunctionSpec, payload: Schema, output: Schema, answer: Schema, errors: Schema) -> Schema:
    text = inspect.getdoc(spec.function) or ""
    done = json_response("The run", answer)
    if spec.output_mode == "incremental":
        done["content"]["text/event-stream"] = {"schema": {"type": "string"}, "x-event-data": {"output": output}}
    return {
        "operationId": spec.python_name,
        "tags": ["functions"],
        "summary": text.partition("\n")[0] or spec.name,
        "description": text,
        "x-output-mode": spec.output_mode,
        "x-output": output,
        "parameters": _RUN_PARAMETERS,
        "requestBody": _body(spec, payload),
        "responses": {
            "200": done,
            "202": json_response("The run goes on", {"$ref": REF.format(name="RunObject")}),
            **errors,
        },
    }


def _warm_up(spec: FunctionSpec, payload: Schema, errors: Schema) -> Schema:
    warmed = {
        "type": "object",
        "required": ["duration_ms", "ok", "run_id"],
        "properties": {
            "duration_ms": {"type": "integer"},
            "ok": {"type": "boolean"},
            "run_id": {"type": "string"},
            "error_message": {"type": "string"},
        },
    }
    both = {"anyOf": [warmed, {"$ref": REF.format(name="Problem")}]}
    return {
        "operationId": f"warm_up_{spec.python_name}",
        "tags": ["functions"],
        "summary": f"Run {spec.name} and throw its output away",
        "parameters": _RUN_PARAMETERS[1:],
        "requestBody": _body(spec, payload),
        "responses": {
            "200": json_response("It ran", warmed),
            **{status: json_response(text, both, "application/problem+json") for status, text in EITHER.items()},
            **{status: errors[status] for status in PROBLEMS},
        },
    }


def _body(spec: FunctionSpec, payload: Schema) -> Schema:
    """The bare payload. An envelope `{"payload": ..., "run_id": ...}` is taken as well; a form only where there are files to send."""
    content: Schema = {"application/json": {"schema": payload}}
    if holds_assets(spec.payload_type):
        form = {"type": "object", "properties": {"payload": {"type": "string", "description": "The payload's JSON, without its files"}}}
        content["multipart/form-data"] = {"schema": form}
    return {"required": True, "content": content}
