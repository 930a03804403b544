"""Converts errors on the paths of front doors into the formats of their protocols."""

from collections.abc import Mapping

import msgspec

from gen_worker.contract.problem import PROBLEM_JSON, Problem
from gen_worker.front_doors.openai.errors import error_body, error_headers
from gen_worker.http.asgi import JSON

_OPENAI = ("/v1/chat/", "/v1/completions", "/v1/embeddings", "/v1/images/", "/v1/audio/")


def error_answer(path: str, problem: Problem, headers: Mapping[str, str]) -> tuple[bytes, bytes, Mapping[str, str]]:
    """Body, content type and headers of a refusal: `problem+json`, unless the programs that use this path expect another format."""
    if path.startswith(_OPENAI):
        return error_body(problem), JSON, error_headers(problem, headers)
    return msgspec.json.encode(problem), PROBLEM_JSON, headers
