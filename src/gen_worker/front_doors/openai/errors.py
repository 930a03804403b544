"""Converts problems to the OpenAI API's format: `{"error": {"message", "type", "param", "code"}}`, with our `code` inside."""

from collections.abc import Mapping
from typing import Any

import msgspec

from gen_worker.contract.problem import Problem

_TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}


def error_object(problem: Problem) -> dict[str, Any]:
    """The `error` object of an answer, or of the last event of a stream."""
    message = problem.detail if problem.hint is None else f"{problem.detail} ({problem.hint})"
    param = problem.errors[0].pointer.strip("/").replace("/", ".") or None if problem.errors else None
    kind = _TYPES.get(problem.status, "invalid_request_error" if problem.status < 500 else "server_error")
    found: dict[str, Any] = {"message": message, "type": kind, "param": param, "code": problem.code}
    return {**found, "run_id": problem.run_id} if problem.run_id else found


def error_body(problem: Problem) -> bytes:
    return msgspec.json.encode({"error": error_object(problem)})


def error_headers(problem: Problem, headers: Mapping[str, str]) -> dict[str, str]:
    """Headers that the official clients use: whether to retry, and the id of the run."""
    found = {**headers, "x-should-retry": "true" if problem.retryable else "false"}
    if problem.run_id:
        found["x-request-id"] = problem.run_id
    return found
