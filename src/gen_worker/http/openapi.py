"""Turns the functions of a manifest into an OpenAPI 3.1 document: one operation for each, with the author's own
examples.

Every status has the schema of what is really sent with it. A failed run keeps its body, and a request that never became
a run gets a problem. Statuses that may be either list both, under both media types; client generators take the first
one they know.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import msgspec

from gen_worker.authoring.assets import Asset
from gen_worker.contract.manifest import FunctionEntry
from gen_worker.errors import FieldError
from gen_worker.http.components import REF, Components, Schema
from gen_worker.http.problems import Problem
from gen_worker.project.schemas import schema_components

EITHER = {
    "400": "The payload or the request is invalid",
    "401": "The function could not authenticate to another service",
    "409": "The run was canceled, or its id is taken",
    "500": "The function or the runner failed",
    "503": "Try again",
    "504": "The run took too long",
}
PROBLEMS = {
    "403": "The request came from a page of another site",
    "404": "Not found",
    "408": "The request came too slowly",
    "413": "The body is too large",
    "415": "The body is compressed",
    "421": "The request names another host",
    "422": "The Idempotency-Key was used before for another request",
    "429": "Too many runs are waiting",
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
        "description": "The same key and request return the same run",
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
    functions: Sequence[FunctionEntry],
    title: str,
    version: str,
    routes: Mapping[str, Schema],
    structs: Sequence[type[msgspec.Struct]] = (),
    descriptions: Mapping[str, str] = MappingProxyType({}),
) -> Schema:
    """The document of a manifest's functions. A run route takes the bare payload and answers with the run. `routes` are
    the server's own paths, whose schemas refer to `structs` by name. `descriptions` are by function slug.
    """
    refs, schemas = schema_components([Problem, FieldError, *structs], REF)
    components = Components(schemas)
    problem = refs[0]
    event, failed = (
        components.add("RunEvent", EVENT),
        components.add("FailedRun", _answer({"output": {"type": "null"}, "outputs": {"type": "array", "items": {}}}, failed=True)),
    )
    either = {"anyOf": [failed, problem]}
    errors: Schema = {status: json_response(text, either, "application/problem+json") for status, text in EITHER.items()}
    errors |= {status: problem_response(text) for status, text in PROBLEMS.items()}
    adopted = [(entry, components.adopt(entry.input_schema), components.adopt(entry.output_schema)) for entry in functions]
    paths: dict[str, Schema] = {}
    for entry, payload, output in adopted:
        name = "".join(part.capitalize() for part in entry.python_name.split("_"))
        answer = components.add(f"{name}Run", _answer(_outputs(entry, output), events=event))
        described = descriptions.get(entry.name, "")
        paths[f"/v1/run/{entry.name}"] = {"post": _operation(entry, described, payload, output, answer, errors)}
        paths[f"/v1/warmup/{entry.name}"] = {"post": _warm_up(entry, payload, errors)}
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": version},
        "paths": dict(sorted({**paths, **routes}.items())),
        "components": {"schemas": components.schemas},
    }


def json_response(text: str, schema: Schema, *also: str) -> Schema:
    """A JSON response, and the same under further media types."""
    return {"description": text, "content": {kind: {"schema": schema} for kind in ("application/json", *also)}}


def problem_response(text: str) -> Schema:
    return {"description": text, "content": {"application/problem+json": {"schema": {"$ref": REF.format(name="Problem")}}}}


def _outputs(entry: FunctionEntry, output: Schema) -> Schema:
    if not entry.incremental_output:
        return {"output": output}
    items = {"type": "array", "items": output}
    listed = {**items, "description": "What the stream gave; null unless `application/json` is accepted by name"}
    return {"output": {"anyOf": [listed, {"type": "null"}]}, "outputs": items}


def _answer(outputs: Schema, *, events: Schema | None = None, failed: bool = False) -> Schema:
    """The runner contract's body. A failure of the runner itself has fewer keys, so a failed run has fewer required keys."""
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


def _operation(entry: FunctionEntry, text: str, payload: Schema, output: Schema, answer: Schema, errors: Schema) -> Schema:
    done = json_response("The run", answer)
    if entry.incremental_output:
        done["content"]["text/event-stream"] = {"x-event-data": {"output": output}}
    return {
        "operationId": entry.python_name,
        "tags": ["functions"],
        "summary": text.partition("\n")[0] or entry.name,
        "description": text,
        "x-output-mode": entry.output_mode,
        "x-output": output,
        "parameters": _RUN_PARAMETERS,
        "requestBody": _body(entry, payload),
        "responses": {
            "200": done,
            "202": json_response("The run continues", {"$ref": REF.format(name="RunnerRun")}),
            **errors,
        },
    }


def _warm_up(entry: FunctionEntry, payload: Schema, errors: Schema) -> Schema:
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
        "operationId": f"warm_up_{entry.python_name}",
        "tags": ["functions"],
        "summary": f"Run {entry.name} and drop its output",
        "parameters": _RUN_PARAMETERS[1:],
        "requestBody": _body(entry, payload),
        "responses": {
            "200": json_response("It ran", warmed),
            **{status: json_response(text, both, "application/problem+json") for status, text in EITHER.items()},
            **{status: errors[status] for status in PROBLEMS},
        },
    }


def _body(entry: FunctionEntry, payload: Schema) -> Schema:
    """The bare payload. An envelope `{"payload": ..., "run_id": ...}` is accepted as well; a form only if the payload has files."""
    content: Schema = {"application/json": {"schema": payload}}
    if _takes_files(entry.input_schema):
        form = {"type": "object", "properties": {"payload": {"type": "string", "description": "The payload's JSON, without its files"}}}
        content["multipart/form-data"] = {"schema": form}
    return {"required": True, "content": content}


def _takes_files(schema: Schema) -> bool:
    """Whether a payload can contain a file: a definition with all fields of an `Asset` or a subclass."""
    wanted = {field.encode_name for field in msgspec.structs.fields(Asset)}
    return any(wanted <= each.get("properties", {}).keys() for each in schema.get("$defs", {}).values())
