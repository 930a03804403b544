"""Lists of runs over HTTP, newest first, a page at a time."""

import asyncio
from collections.abc import Mapping

import msgspec

from gen_orchestrator.api.access import caller_of
from gen_orchestrator.api.json_bodies import aside
from gen_orchestrator.api.run_object import RunObjects
from gen_orchestrator.domain.runs import Run
from gen_orchestrator.scheduling.open_run import OpenRun
from gen_orchestrator.store.base import RunFilter, RunStore
from gen_worker.contract.run import RunPage
from gen_worker.http.asgi import Request, RequestError
from gen_worker.http.headers import whole_number
from gen_worker.names import did_you_mean

PAGE_SIZE = 50
MAX_PAGE_SIZE = 500
MAX_PAGE_BYTES = 8 << 20  # of payloads and outputs; above it, the page ends early with a cursor
STATUSES = ("queued", "starting", "running", "succeeded", "failed", "canceled", "expired")
_STATES = {"starting": "leased", "running": "leased"}


class RunList:
    """The handler of `/v1/runs`. `open_runs` are the unfinished ones, by id: only memory knows their progress."""

    def __init__(self, store: RunStore, open_runs: Mapping[str, OpenRun], objects: RunObjects) -> None:
        self._store = store
        self._objects = objects
        self._open = open_runs

    async def list(self, request: Request) -> None:
        """`GET /v1/runs?status=&function=&owner=&endpoint=&cursor=&limit=&include=input`."""
        query = request.query()
        status = query.get("status", "")
        if status and status not in STATUSES:
            near = did_you_mean(status, STATUSES)
            raise RequestError(400, "validation", f"status={status[:40]!r}.{near} Expected one of: {', '.join(STATUSES)}")
        limit = whole_number(query.get("limit", str(PAGE_SIZE)))
        if limit is None or not 1 <= limit <= MAX_PAGE_SIZE:
            raise RequestError(400, "validation", f"limit={query['limit'][:20]!r}; expected a number from 1 to {MAX_PAGE_SIZE}")
        include = query.get("include", "")
        if include not in ("", "input"):
            raise RequestError(400, "validation", f"include={include[:40]!r}; expected: input")
        caller = caller_of(request)
        names = {name: _no_nul(name, query.get(name, "")) for name in ("owner", "endpoint", "function", "cursor")}
        names["owner"] = caller.own(names["owner"])
        states = (_STATES.get(status, status),) if status else ()
        wanted = RunFilter(**names, states=states, limit=limit + 1, max_bytes=MAX_PAGE_BYTES)
        found = await asyncio.to_thread(self._store.list_runs, wanted)
        last = await asyncio.to_thread(self._store.get, wanted.cursor) if wanted.cursor and not found else None
        if wanted.cursor and not found and (last is None or not caller.sees(last.owner)):
            detail = f"cursor={wanted.cursor[:40]!r} names a run that is no longer kept; start again without a cursor"
            raise RequestError(400, "validation", detail)
        runs = _page_of(found, limit)
        rows = [(run, self._open.get(run.id)) for run in runs]
        size_bytes = sum(len(run.payload) + len(run.output) for run in runs)

        def shown_page() -> bytes:
            objects = [self._objects.of(run, open_run, with_input=bool(include)) for run, open_run in rows]
            if status in _STATES:
                objects = [each for each in objects if each.status == status]
            return msgspec.json.encode(RunPage(objects, runs[-1].id if len(runs) < len(found) else None))

        await request.answer(200, await aside(size_bytes, shown_page))


def _page_of(found: list[Run], limit: int) -> list[Run]:
    """As many runs as fit into a page, at least one; the store returns one more than `limit`."""
    size_bytes = 0
    for index, run in enumerate(found):
        size_bytes += len(run.payload) + len(run.output)
        if index == limit or (index and size_bytes > MAX_PAGE_BYTES):
            return found[:index]
    return found


def _no_nul(name: str, value: str) -> str:
    if "\0" in value:
        raise RequestError(400, "validation", f"{name}={value[:40]!r}: names cannot contain a NUL character")
    return value
