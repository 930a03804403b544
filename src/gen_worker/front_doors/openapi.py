"""The routes of front doors, for the OpenAPI documents of the programs that have them.

The protocols' own documentation describes their bodies; here is only what client generators and checks of all routes
need.
"""

import re

from gen_worker.http.components import Schema
from gen_worker.http.openapi import EITHER, PROBLEMS, json_response, problem_response

_TEXT: Schema = {"type": "string"}
_OPTIONAL: Schema = {"anyOf": [_TEXT, {"type": "null"}]}
_ERROR: Schema = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {"message": _TEXT, "type": _TEXT, "param": _OPTIONAL, "code": _TEXT, "run_id": _TEXT},
        }
    },
}
_MODEL: Schema = {
    "type": "object",
    "required": ["id", "object", "created", "owned_by", "task"],
    "properties": {"id": _TEXT, "object": {"type": "string"}, "created": {"type": "integer"}, "owned_by": _TEXT, "task": _TEXT},
}
_LIST: Schema = {
    "type": "object",
    "required": ["object", "data"],
    "properties": {"object": {"type": "string"}, "data": {"type": "array", "items": _MODEL}},
}
_OBJECT: Schema = {"type": "object"}
_BYTES: Schema = {"type": "string", "format": "binary"}
_ANYTHING: Schema = {
    "description": "The text, as JSON, plain text, subtitles or events",
    "content": {"application/json": {"schema": _OBJECT}},
}
_ANYTHING["content"] |= {"text/plain": {"schema": _TEXT}, "text/event-stream": {}}
_RECORDING: Schema = {"description": "The recording", "content": {"application/octet-stream": {"schema": _BYTES}}}
_PREDICTION = json_response("The prediction", _OBJECT)
_OBJECTS: Schema = {"type": "array", "items": _OBJECT}


def door_paths(model_path: str) -> dict[str, Schema]:
    """All routes of front doors. `model_path`: the path of a single model in this program."""
    names = re.findall(r"\{(\w+)\}", model_path)
    parameters = [{"name": name, "in": "path", "required": True, "schema": _TEXT} for name in names]
    return {
        "/v1/models": {"get": _get("list_task_functions", "List functions with a task", json_response("Functions by name", _LIST), [])},
        model_path: {"get": _get("get_task_function", "Get a function with a task", json_response("The function", _MODEL), parameters)},
        **_post("/v1/chat/completions", "create_chat_completion", "Continue a conversation", "messages", _OBJECTS),
        **_post("/v1/completions", "create_completion", "Continue a text", "prompt", _TEXT),
        **_cog_paths(),
        "/mcp": {"post": _mcp()},
        **_post("/v1/embeddings", "create_embedding", "Embed texts", "input", {}, json_response("The vectors", _OBJECT)),
        **_post("/v1/images/generations", "create_image", "Generate images", "prompt", _TEXT, json_response("The images", _OBJECT)),
        **_post(
            "/v1/audio/transcriptions", "create_transcription", "Transcribe a recording", "file", _BYTES, _ANYTHING, "multipart/form-data"
        ),
        **_post("/v1/audio/speech", "create_speech", "Read aloud", "input", _TEXT, _RECORDING),
    }


def _cog_paths() -> dict[str, Schema]:
    run_id: Schema = {"name": "run_id", "in": "path", "required": True, "schema": _TEXT}
    of_endpoint = [{**run_id, "name": name} for name in ("owner", "endpoint")]
    function: Schema = {"name": "function", "in": "query", "required": False, "schema": _TEXT}
    found: dict[str, Schema] = {}
    for prefix, name in (("", "prediction"), ("/v1", "model_prediction")):
        found |= {
            f"{prefix}/predictions": {"post": _predict(f"create_{name}", [function])},
            f"{prefix}/predictions/{{run_id}}": {"get": _get(f"get_{name}", "Get a run as a prediction", _PREDICTION, [run_id], "cog")},
            f"{prefix}/predictions/{{run_id}}/cancel": {
                "post": _get(f"cancel_{name}", "Cancel a prediction", _PREDICTION, [run_id], "cog")
            },
        }
    found["/predictions/{run_id}"]["put"] = _predict("put_prediction", [run_id, function])
    found["/v1/models/{owner}/{endpoint}/predictions"] = {"post": _predict("predict_by_endpoint", [*of_endpoint, function])}
    found["/health-check"] = {"get": _get("get_health", "Check that it can take work", json_response("The state", _OBJECT), [], "cog")}
    return found


def _mcp() -> Schema:
    answers = {status: problem_response({**EITHER, **PROBLEMS}[status]) for status in ("401", "403", "404", "408", "413", "415", "421")}
    message = {"200": json_response("The answer, or events", _OBJECT), "202": {"description": "The message was accepted"}}
    wrong = {"description": "The body is not a message", "content": {"application/json": {"schema": _OBJECT}}}
    return {
        "operationId": "send_mcp_message",
        "tags": ["mcp"],
        "summary": "Send a message of the Model Context Protocol",
        "parameters": [],
        "requestBody": {"required": True, "content": {"application/json": {"schema": _OBJECT}}},
        "responses": {**message, "400": wrong, "406": wrong, **answers},
    }


def _predict(name: str, parameters: list[Schema]) -> Schema:
    answers = {status: problem_response({**EITHER, **PROBLEMS}[status]) for status in sorted({**EITHER, **PROBLEMS})}
    body: Schema = {"type": "object", "properties": {"input": _OBJECT, "version": _TEXT, "webhook": _TEXT}}
    return {
        "operationId": name,
        "tags": ["cog"],
        "summary": "Run a function as a prediction",
        "parameters": parameters,
        "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
        "responses": {"200": _PREDICTION, "201": _PREDICTION, "202": _PREDICTION, **answers},
    }


def _get(name: str, summary: str, answer: Schema, parameters: list[Schema], tag: str = "openai") -> Schema:
    problems = {status: problem_response(PROBLEMS.get(status, "The request is wrong")) for status in ("400", "401", "403", "404", "421")}
    return {"operationId": name, "tags": [tag], "summary": summary, "parameters": parameters, "responses": {**problems, "200": answer}}


def _post(
    path: str, name: str, summary: str, field: str, schema: Schema, answer: Schema | None = None, kind: str = "application/json"
) -> dict[str, Schema]:
    body: Schema = {"type": "object", "required": ["model", field], "properties": {"model": _TEXT, field: schema}}
    done = answer or json_response("The answer, or its pieces as events with stream=true", _OBJECT)
    if answer is None:
        done["content"]["text/event-stream"] = {}
    operation: Schema = {
        "operationId": name,
        "tags": ["openai"],
        "summary": summary,
        "parameters": [],
        "requestBody": {"required": True, "content": {kind: {"schema": body}}},
        "responses": {"200": done, **_errors(*EITHER, *PROBLEMS)},
    }
    return {path: {"post": operation}}


def _errors(*statuses: str) -> Schema:
    return {status: json_response({**EITHER, **PROBLEMS}[status], _ERROR) for status in sorted(statuses)}
