"""Runs started by other runs (`ctx.invoke`), authorized by the parent's file token. See `gen_worker.contract.children`."""

import time
from collections.abc import Callable

import msgspec

from gen_orchestrator.api.access import bearer_of
from gen_orchestrator.api.envelope import read_invocation, refused
from gen_orchestrator.api.json_bodies import JsonError, aside, read_json
from gen_orchestrator.api.runs import MAX_BODY_BYTES, RunRoutes
from gen_orchestrator.api.streams import RunStreams
from gen_orchestrator.domain.runs import Run
from gen_orchestrator.hub.files import FileToken, FileTokens
from gen_orchestrator.hub.registry import NotFoundError, Registry, Resolved, TagNameError, split_tag
from gen_orchestrator.scheduling.children import ChildRuns, child_key, fingerprint_of, may_answer
from gen_orchestrator.scheduling.dispatcher import Dispatcher
from gen_orchestrator.scheduling.intake import Submitted
from gen_orchestrator.scheduling.open_run import OpenRun
from gen_orchestrator.scheduling.run_ids import new_run_id
from gen_worker.contract.children import CHILDREN_HEADER, MAX_DEPTH, ChildRequest
from gen_worker.http.asgi import Request, RequestError

MAX_TRIES = 50
MAX_NUMBER = 1_000_000
_HEADERS = {CHILDREN_HEADER: "1"}


class ChildRoutes:
    """Handlers of `/api/v1/runs/{run_id}/children`. `on_copy` gets the id of a shadow run that asks: shadow runs cannot
    call functions.
    """

    def __init__(
        self,
        children: ChildRuns,
        tokens: FileTokens,
        registry: Registry,
        dispatcher: Dispatcher,
        runs: RunRoutes,
        streams: RunStreams,
        on_copy: Callable[[str], None],
    ) -> None:
        self._children = children
        self._tokens = tokens
        self._registry = registry
        self._dispatcher = dispatcher
        self._runs = runs
        self._streams = streams
        self._on_copy = on_copy

    async def create(self, request: Request) -> None:
        """`POST /api/v1/runs/{run_id}/children`: the child's events as NDJSON, to its end."""
        try:
            submitted = await self._submit(request)
        except RequestError as exc:
            exc.headers = {**(exc.headers or {}), **_HEADERS}
            raise
        await self._streams.follow(request, submitted.run, submitted.open, _HEADERS)

    async def cancel(self, request: Request) -> None:
        """`POST /api/v1/runs/{run_id}/children/{child_id}/cancel`."""
        token = self._token(request)
        child = self._dispatcher.open.get(request.parts["child_id"])
        if child is not None and (child.run.owner, child.run.parent_id) == (token.owner, token.run_id):
            await self._dispatcher.cancel(child.id)
        await request.answer(200, b"{}", headers=_HEADERS)

    async def _submit(self, request: Request) -> Submitted:
        parent = self._parent(request)
        wanted = await _wanted(request)
        if self._children.depth(parent.run) >= MAX_DEPTH:
            raise RequestError(400, "fatal", f"ctx.invoke({wanted.ref[:100]!r}): functions call one another {MAX_DEPTH} deep at most")
        endpoint, function, resolved = self._resolve(parent.run, wanted.ref)
        schema = resolved.entry.input_schema if resolved.takes_bytes else None
        body = b'{"payload":' + bytes(wanted.payload) + b"}"
        invocation = await aside(len(body), lambda: read_invocation(body, wanted.ref, schema))
        fingerprint, settings, now = fingerprint_of(wanted.ref, invocation.payload), resolved.settings, time.time()
        limits = [ms for ms in (wanted.timeout_ms, round(settings.timeout_s * 1000)) if ms]
        run = Run(
            id=new_run_id(),
            owner=parent.run.owner,
            endpoint=endpoint,
            function=function,
            tag=resolved.tag,
            release_id=resolved.release_id,
            payload=invocation.payload,
            created_at=now,
            max_attempts=settings.max_attempts,
            priority=parent.run.priority,
            timeout_ms=min(limits, default=0),
            expires_at=now + wanted.timeout_ms / 1000 if wanted.timeout_ms else 0.0,
            idempotency_key=child_key(parent.id, wanted.number, fingerprint),
            fingerprint=fingerprint,
            invoker_id=parent.run.invoker_id,
            parent_id=parent.id,
            traceparent=parent.run.traceparent,
        )
        key = run.idempotency_key
        for _ in range(MAX_TRIES):
            submitted = await self._runs.submit(run, resolved)
            if submitted.is_new:
                if parent.is_over:
                    await self._dispatcher.cancel(submitted.run.id)
                else:
                    self._children.begun(submitted.run)
                return submitted
            if may_answer(submitted.run):
                return submitted
            run = msgspec.structs.replace(run, id=new_run_id(), idempotency_key=f"{key}:{submitted.run.id}")
        raise RequestError(503, "unavailable", f"call {wanted.number} failed {MAX_TRIES} times before; it is not made again")

    def _parent(self, request: Request) -> OpenRun:
        token = self._token(request)
        parent = self._dispatcher.open.get(token.run_id)
        if parent is None or not parent.is_sent or (parent.run.owner, parent.run.attempt) != (token.owner, token.attempt):
            raise RequestError(
                403, "auth", f"attempt {token.attempt} of run {token.run_id} is over: it cannot call functions any more", error="sealed"
            )
        if parent.is_shadow:
            self._on_copy(parent.id)
            raise RequestError(409, "conflict", "a shadow run, made to compare two releases, cannot call other functions")
        return parent

    def _token(self, request: Request) -> FileToken:
        token = self._tokens.verify(bearer_of(request))
        if token is None or token.run_id != request.parts["run_id"]:
            raise RequestError(401, "auth", "the run's file token is not accepted", headers=_HEADERS)
        return token

    def _resolve(self, parent: Run, ref: str) -> tuple[str, str, Resolved]:
        """Endpoint and function of a call, and the release to use: within the parent's endpoint and without a tag, the
        parent's release.
        """
        *path, name = ref.split("/")
        try:
            function, tag = split_tag(name)
            if len(path) > 2 or not all((*path, function)):
                raise NotFoundError(
                    f"{ref[:100]!r} is not a function; expected function, endpoint/function or owner/endpoint/function[:tag]"
                )
            if len(path) > 1 and path[-2] != parent.owner:
                raise NotFoundError(f"no owner {path[-2][:64]!r} with functions that this run may call")
            endpoint = path[-1] if path else parent.endpoint
            if not path and name == function:
                tag = f"@{parent.release_id}"
            resolved = self._registry.resolve(parent.owner, endpoint, function, tag)
            if resolved.settings.is_session:
                raise NotFoundError(f"{function} is a websocket, which cannot be called")
            return endpoint, function, resolved
        except (NotFoundError, TagNameError) as exc:
            raise RequestError(404, "validation", f"ctx.invoke({ref[:100]!r}): {exc}", error="unknown_function") from None


async def _wanted(request: Request) -> ChildRequest:
    body = await request.body(MAX_BODY_BYTES)
    try:
        read_json(body)  # refuses what msgspec's decoder alone would accept
        wanted = msgspec.json.decode(body, type=ChildRequest)
    except JsonError as exc:
        raise refused(exc, "the body") from None
    except msgspec.DecodeError as exc:
        raise RequestError(400, "validation", f'{exc}; expected {{"ref": "draw", "number": 1, "payload": {{}}}}') from None
    if not (1 <= wanted.number <= MAX_NUMBER and wanted.timeout_ms >= 0):
        raise RequestError(
            400, "validation", f"number {wanted.number}, timeout_ms {wanted.timeout_ms}; expected numbers from 1, and from 0"
        )
    return wanted
