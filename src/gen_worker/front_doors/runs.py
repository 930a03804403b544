"""How a front door follows a run: starts it at its own route, reads its events, cancels it when the client disconnects."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from types import MappingProxyType
from typing import Any

import msgspec

from gen_worker.contract.problem import Problem
from gen_worker.contract.run import Usage
from gen_worker.front_doors.catalog import Target
from gen_worker.front_doors.inside import Answer, Inside
from gen_worker.http.asgi import Request
from gen_worker.http.problems import problem

NDJSON = "application/x-ndjson"
_encode = msgspec.json.Encoder().encode


class ProblemError(Exception):
    """A run that was refused or that failed."""

    def __init__(self, problem: Problem, headers: Mapping[str, str] = MappingProxyType({})) -> None:
        super().__init__(problem.detail)
        self.problem = problem
        self.headers = headers


class File(msgspec.Struct, frozen=True):
    """A file of a run. `url`: its path on this server."""

    ref: str
    url: str
    mime_type: str | None = None
    size_bytes: int | None = None


class DoneRun(msgspec.Struct, frozen=True):
    """A finished run: the common fields of the dev runner's and the platform's run objects."""

    id: str
    status: str
    output: Any = None
    files: list[File] | None = None
    error: Problem | None = None
    usage: Usage | None = None


class Event(msgspec.Struct, frozen=True):
    """One event of a run's stream."""

    event: str
    data: msgspec.Raw


HEARTBEAT = Event("heartbeat", msgspec.Raw(b"null"))
_decode_event = msgspec.json.Decoder(Event).decode
_decode_run = msgspec.json.Decoder(DoneRun).decode
_decode_problem = msgspec.json.Decoder(Problem).decode
_decode = msgspec.json.Decoder().decode


class Run:
    """A run in progress."""

    def __init__(self, run_id: str, answer: Answer) -> None:
        self.id = run_id
        self.done: DoneRun | None = None
        self.is_over = False
        self._answer = answer

    async def events(self) -> AsyncIterator[Event]:
        """Events as they come, `HEARTBEAT` while there are none, until the run's end. `done` is set if the run
        succeeded.

        `ProblemError` if it failed; `DisconnectedError` once the front door's client has gone.
        """
        async for event in event_lines(self._answer):
            if event.event == "done":
                self._end(_decode_run(event.data))
                return
            yield event
        self.is_over = True  # as far as this front door is concerned
        raise ProblemError(
            problem(503, "not_ready", f"run {self.id} continues, but this server is ending; look for it at /v1/runs/{self.id}")
        )

    async def outputs(self) -> AsyncIterator[dict[str, Any] | None]:
        """The function's outputs, one by one: its stream, or its one output. None while there is nothing new.

        `ProblemError` also when the run was restarted on another worker after part of its output was delivered: a
        reader cannot join the two.
        """
        given = 0
        async for event in self.events():
            if event.event == "output":
                given += 1
                yield _decode(event.data)
            elif event.event in ("restart", "snapshot") and given:
                detail = f"run {self.id} was restarted after part of its output had been sent; send the request again"
                raise ProblemError(problem(503, "retryable", detail))
            elif event is HEARTBEAT:
                yield None
        if not given and self.done is not None and isinstance(self.done.output, dict):
            yield self.done.output

    async def finish(self) -> DoneRun:
        """Wait for the end. Raises what `events` raises."""
        async for _ in self.events():
            pass
        assert self.done is not None
        return self.done

    def _end(self, run: DoneRun) -> None:
        self.is_over = True
        if run.status != "succeeded":
            found = run.error or problem(500, "internal", f"run {run.id} is {run.status}")
            raise ProblemError(msgspec.structs.replace(found, run_id=run.id))
        self.done = run


class Runs:
    """Starts runs for the clients of front doors."""

    def __init__(self, inside: Inside) -> None:
        self.inside = inside
        self._ending: set[asyncio.Task[None]] = set()  # cancel requests that outlive the request they belong to

    @asynccontextmanager
    async def start(
        self,
        request: Request,
        target: Target,
        payload: Mapping[str, Any],
        *,
        form: tuple[bytes, str] | None = None,
        run_id: str = "",
        headers: Mapping[str, str] = MappingProxyType({}),
    ) -> AsyncIterator[Run]:
        """Start a run. Leaving the block early cancels it, unless others may also wait for it: callers with the same
        Idempotency-Key, or with the same request to a function with a memo. `ProblemError` when it is refused.

        `form`: a complete body and its content type, instead of the payload. `run_id`: the id that the run gets, once.
        """
        body, kind = (_encode({"payload": payload}), "application/json") if form is None else form
        left = asyncio.ensure_future(request.left())
        run: Run | None = None
        is_shared = bool(run_id) or request.has_header(b"idempotency-key")
        try:
            async with self.inside.ask(request, *target.way(run_id), body, {**headers, "content-type": kind, "accept": NDJSON}) as answer:
                if answer.status >= 400:
                    raise ProblemError(problem_in(await answer.body(), answer.status), _kept(answer.headers))
                run = Run(answer.headers["x-run-id"], answer)
                is_shared |= "x-memo" in answer.headers
                left.add_done_callback(lambda done: None if done.cancelled() else answer.abandon())
                yield run
        except BaseException as exc:
            # When this program ends (it cancels its tasks) the run goes on: the next program resumes it.
            stops = isinstance(exc, Exception) or left.done()
            if stops and run is not None and not run.is_over and not is_shared:
                ending = asyncio.ensure_future(self._cancel(request, run.id))
                self._ending.add(ending)
                ending.add_done_callback(self._ending.discard)
                await asyncio.shield(ending)
            raise
        finally:
            left.cancel()

    async def _cancel(self, request: Request, run_id: str) -> None:
        async with self.inside.ask(request, "POST", f"/v1/runs/{run_id}/cancel") as answer:
            await answer.body()


async def event_lines(answer: Answer) -> AsyncGenerator[Event, None]:
    """Events of an NDJSON answer; `HEARTBEAT` for lines that only say that it goes on."""
    rest = b""
    async for piece in answer.pieces():
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            yield _decode_event(line) if line else HEARTBEAT


def problem_in(body: bytes, status: int) -> Problem:
    """The problem in a route's refusal, or a problem with this status."""
    with suppress(msgspec.DecodeError, UnicodeDecodeError):
        return _decode_problem(body)
    return problem(status, "internal", "the run was not started")


def _kept(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name in ("retry-after", "x-queue-depth", "www-authenticate")}
