"""The routes of cog and of Replicate's API.

POST /predictions [PUT /predictions/<id>]   answers when the run is over; leaving cancels it; Prefer: respond-async answers at once
POST /v1/predictions                        answers at once; Prefer: wait[=n] waits
GET  .../predictions/<id>                   a prediction
POST .../predictions/<id>/cancel            stop it
GET  /health-check                          whether the server can take work
"""

import asyncio
from contextlib import aclosing
from typing import Any

import msgspec

from gen_worker.contract.problem import PROBLEM_JSON
from gen_worker.front_doors.catalog import Catalog, Target
from gen_worker.front_doors.cog.inputs import Asked, read_asked, target_of, webhook_options
from gen_worker.front_doors.cog.predictions import BASE_HEADER, Said, SeenRun, base_for, decode_run, prediction, texts_of
from gen_worker.front_doors.file_fields import payload_of
from gen_worker.front_doors.files import Files
from gen_worker.front_doors.inside import in_path
from gen_worker.front_doors.runs import NDJSON, Event, ProblemError, Runs, event_lines, problem_in
from gen_worker.http.asgi import Handler, Request, RequestError
from gen_worker.http.headers import parse_prefer

MAX_WAIT_S = 59  # the client gives up after 60.5
IDLE_S = 0.05  # available events arrive at once
_encode = msgspec.json.Encoder().encode
Routes = list[tuple[str, str, Handler]]


class CogDoor:
    """Handlers of predictions."""

    def __init__(self, catalog: Catalog, runs: Runs, files: Files) -> None:
        self._catalog = catalog
        self._runs = runs
        self._inside = runs.inside
        self._files = files

    async def create(self, request: Request) -> None:
        """`POST /predictions`, `PUT /predictions/{run_id}`."""
        asked = await read_asked(request, request.parts.get("run_id", ""))
        known = await self._known(request, asked)
        if known is not None:
            await self._answer(request, 200, known, asked.input)
            return
        respond_async, wait_s = parse_prefer(request.header(b"prefer"))
        if respond_async:
            await self._begin(request, asked, 0 if wait_s is None else wait_s, 202)
        else:
            await self._wait_for(request, asked)

    async def begin(self, request: Request) -> None:
        """`POST /v1/predictions`, `POST /v1/models/{owner}/{endpoint}/predictions`."""
        _, wait_s = parse_prefer(request.header(b"prefer"))
        await self._begin(request, await read_asked(request), 0 if wait_s is None else min(wait_s, MAX_WAIT_S), 201)

    async def get(self, request: Request) -> None:
        """`GET .../predictions/{run_id}`."""
        await self._answer(request, 200, await self._look(request, request.parts["run_id"]))

    async def cancel(self, request: Request) -> None:
        """`POST .../predictions/{run_id}/cancel`."""
        async with self._inside.ask(request, "POST", f"/v1/runs/{in_path(request.parts['run_id'])}/cancel") as answer:
            body = await answer.body()
            if answer.status != 200:
                raise ProblemError(problem_in(body, answer.status))
        await self._answer(request, 200, decode_run(body))

    async def health(self, request: Request) -> None:
        """`GET /health-check`."""
        status, _, _ = await self._inside.get(request, "/readyz")
        await request.answer(200, _encode({"status": "READY" if status == 200 else "STARTING", "setup": {"status": "succeeded"}}))

    async def _wait_for(self, request: Request, asked: Asked) -> None:
        target = target_of(self._catalog, request, asked)
        form = _body(target, asked), "application/json"
        try:
            async with self._runs.start(request, target, {}, form=form, run_id=asked.id or "", headers=_tells(request, asked)) as run:
                run_id = run.id
                await run.finish()
        except ProblemError as exc:
            if exc.problem.run_id is None:
                raise
            if exc.problem.code == "validation":  # cog refuses it before it is a prediction
                raise RequestError(422, "validation", exc.problem.detail, errors=exc.problem.errors) from None
            run_id = exc.problem.run_id
        await self._answer(request, 200, await self._look(request, run_id), asked.input)

    async def _begin(self, request: Request, asked: Asked, wait_s: int, status: int) -> None:
        target = target_of(self._catalog, request, asked)
        fields = {"content-type": "application/json", "prefer": "respond-async", **_tells(request, asked)}
        async with self._inside.ask(request, *target.way(asked.id or ""), _body(target, asked), fields) as answer:
            begun = await answer.body()
            if answer.status >= 400:
                raise ProblemError(problem_in(begun, answer.status))
        run = decode_run(begun)
        if wait_s:
            run = await self._look(request, run.id, wait_s)
            if not run.is_over:  # the client takes any other word for the end
                run = msgspec.structs.replace(run, status="starting")
        await self._answer(request, status, run, asked.input)

    async def _known(self, request: Request, asked: Asked) -> SeenRun | None:
        """The existing run with this id: asking twice has the effect of asking once. If runs are started by PUT, the
        route itself does this.
        """
        if asked.id is None or target_of(self._catalog, request, asked).id_path:
            return None
        status, _, body = await self._inside.get(request, f"/v1/runs/{asked.id}")
        return decode_run(body) if status == 200 else None

    async def _look(self, request: Request, run_id: str, wait_s: int = 0) -> SeenRun:
        wait = f"?wait={wait_s}" if wait_s else ""
        status, _, body = await self._inside.get(request, f"/v1/runs/{in_path(run_id)}{wait}")
        if status != 200:
            raise ProblemError(problem_in(body, status))
        return decode_run(body)

    async def _answer(self, request: Request, status: int, run: SeenRun, given: Any = None) -> None:
        streams = self._streams(request, run)
        said = await self._said(request, run) if run.started_at is not None else Said()
        told = await texts_of(request, run, self._files)
        body = prediction(run, said, base_for(request), told, streams=streams, given=given)
        await request.answer(status, _encode(body), headers={"location": body["urls"]["get"]})

    def _streams(self, request: Request, run: SeenRun) -> bool:
        try:
            return self._catalog.find(request, run.function_name).entry.incremental_output
        except RequestError:  # it is no longer served
            return False

    async def _said(self, request: Request, run: SeenRun) -> Said:
        """The run's output so far; all of it when it is over."""
        said = Said()
        events = self._inside.ask(request, "GET", f"/v1/runs/{run.id}/events", headers={"accept": NDJSON})
        async with events as answer, aclosing(event_lines(answer)) as lines:
            while (event := await _soon(lines, None if run.is_over else IDLE_S)) is not None:
                if event.event == "done":
                    break
                said.take(event.event, event.data)
        return said


def _body(target: Target, asked: Asked) -> bytes:
    """The body of the run."""
    body: dict[str, Any] = {"payload": payload_of(asked.input, target.entry.input_schema), **webhook_options(asked)}
    return _encode(body if asked.id is None or target.id_path else {**body, "run_id": asked.id})


def _tells(request: Request, asked: Asked) -> dict[str, str]:
    return {BASE_HEADER.decode(): base_for(request)} if asked.webhook or asked.webhook_completed else {}


async def _soon(lines: Any, timeout_s: float | None) -> Event | None:
    try:
        async with asyncio.timeout(timeout_s):
            found: Event | None = await anext(lines, None)
            return found
    except TimeoutError:
        return None


def cog_routes(door: CogDoor) -> Routes:
    """Routes that need runs."""
    routes: Routes = [
        ("POST", "/predictions", door.create),
        ("PUT", "/predictions/{run_id}", door.create),
        ("POST", "/v1/predictions", door.begin),
    ]
    routes.append(("POST", "/v1/models/{owner}/{endpoint}/predictions", door.begin))
    for prefix in ("", "/v1"):
        routes += [("GET", f"{prefix}/predictions/{{run_id}}", door.get), ("POST", f"{prefix}/predictions/{{run_id}}/cancel", door.cancel)]
    return [(method, path, _answered(handler)) for method, path, handler in routes]


def _answered(handler: Handler) -> Handler:
    async def answered(request: Request) -> None:
        try:
            await handler(request)
        except ProblemError as exc:
            await request.answer(exc.problem.status, _encode(exc.problem), PROBLEM_JSON, exc.headers)

    return answered
