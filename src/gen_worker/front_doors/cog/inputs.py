"""Parses a prediction request: its input and its function."""

from collections.abc import Sequence
from typing import Any

import msgspec

from gen_worker.front_doors.catalog import Catalog, Target
from gen_worker.http.asgi import Request, RequestError
from gen_worker.names import RUN_ID_RULE, is_run_id

EVENTS = ("start", "output", "logs", "completed")
MAX_BODY_BYTES = 32 << 20
_RUN_EVENTS = {"start": ("started",), "completed": ("succeeded", "failed", "canceled", "expired")}


class Asked(msgspec.Struct, frozen=True):
    """The body of a request. `version` names a function; other fields of cog's and Replicate's bodies are ignored."""

    input: dict[str, Any] = {}
    id: str | None = None
    version: str | None = None
    model: str | None = None
    webhook: str | None = None
    webhook_completed: str | None = None
    webhook_events_filter: tuple[str, ...] | None = None
    stream: bool = False
    created_at: str | None = None
    context: dict[str, Any] | None = None


async def read_asked(request: Request, run_id: str = "") -> Asked:
    """Read the body; `RequestError` 400, or 422 where cog answers so. `run_id`: from the path."""
    body = await request.body(MAX_BODY_BYTES)
    try:
        asked = msgspec.json.decode(body or b"{}", type=Asked)
    except (msgspec.ValidationError, RecursionError) as exc:
        raise RequestError(422, "validation", f"the body: {exc}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise RequestError(400, "invalid_json", f"the body is not JSON: {exc}", error="invalid_json") from None
    if run_id and asked.id not in (None, run_id):
        raise RequestError(422, "validation", f"id {asked.id!r} of the body is not the id {run_id!r} of the path")
    named = run_id or asked.id
    if named is not None and not is_run_id(named):
        raise RequestError(422, "validation", f"prediction id {named[:100]!r}; {RUN_ID_RULE}")
    for event in asked.webhook_events_filter or ():
        if event not in EVENTS:
            raise RequestError(422, "validation", f"webhook_events_filter: {event[:40]!r}; expected some of {', '.join(EVENTS)}")
    return msgspec.structs.replace(asked, id=named)


def webhook_options(asked: Asked) -> dict[str, Any]:
    """Run options that notify the request's webhook. There are no notifications for each piece of output or log."""
    url = asked.webhook or asked.webhook_completed
    if url is None:
        return {}
    wanted = asked.webhook_events_filter if asked.webhook and asked.webhook_events_filter is not None else ("start", "completed")
    events = [each for event in wanted for each in _RUN_EVENTS.get(event, ())] if asked.webhook else list(_RUN_EVENTS["completed"])
    return {"webhook": url, "webhook_events": events} if events else {}


def target_of(catalog: Catalog, request: Request, asked: Asked) -> Target:
    """The function of a request: from the path, `?function=`, `version` or `model`; otherwise the only function that there is."""
    parts = request.parts
    name = request.query().get("function") or asked.version
    if "endpoint" in parts:
        endpoint = f"{parts['owner']}/{parts['endpoint']}"
        return catalog.find(request, f"{endpoint}/{name}") if name else _only(catalog.all(request), f"{endpoint}/", f"endpoint {endpoint}")
    name = name or asked.model
    if not name:
        return _only(catalog.all(request), "", "this server")
    if name.count("/") == 1 and ":" not in name:
        return _only(catalog.all(request), f"{name}/", f"endpoint {name}")
    return catalog.find(request, name)


def _only(targets: Sequence[Target], prefix: str, where: str) -> Target:
    """The only function, under its plain name."""
    names = [target.name for target in targets if ":" not in target.name]
    found = [target for target in targets if target.name.startswith(prefix) and ":" not in target.name] or (
        [target for target in targets if "/" not in target.name] if prefix else []
    )
    if len(found) == 1:
        return found[0]
    if not found:
        raise RequestError(404, "not_found", f"{where} has no function for this key", error="unknown_function")
    known = ", ".join(target.name for target in found[:20]) if found else ", ".join(names)
    raise RequestError(
        400, "validation", f"{where} has several functions: {known}; say which by ?function=NAME, or as the prediction's 'version'"
    )
