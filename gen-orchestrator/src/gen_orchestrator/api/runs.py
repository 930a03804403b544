"""Runs over HTTP: invoke, get, cancel, retry."""

import asyncio
import hashlib
import time
from collections.abc import Mapping

import msgspec

from gen_orchestrator.api import run_object as shown
from gen_orchestrator.api.absent import no_owner
from gen_orchestrator.api.access import caller_of
from gen_orchestrator.api.blob_bodies import not_kept
from gen_orchestrator.api.budget_error import BudgetError
from gen_orchestrator.api.callers import invoker_of, traceparent_of
from gen_orchestrator.api.envelope import Invocation, read_invocation
from gen_orchestrator.api.json_bodies import aside
from gen_orchestrator.api.memo import Memo
from gen_orchestrator.api.shown_deliveries import shown_delivery
from gen_orchestrator.api.streams import RunStreams
from gen_orchestrator.api.uploads import read_form
from gen_orchestrator.api.webhook_targets import WebhookReceivers, webhook_target
from gen_orchestrator.domain.runs import Run
from gen_orchestrator.domain.webhooks import read_target
from gen_orchestrator.hub.files import RunFiles
from gen_orchestrator.hub.registry import NotFoundError, Registry, Resolved, TagNameError, split_tag
from gen_orchestrator.scheduling.dispatcher import Dispatcher
from gen_orchestrator.scheduling.heard import is_session
from gen_orchestrator.scheduling.intake import AdmissionError, ReleaseGoneError, Submitted
from gen_orchestrator.scheduling.open_run import OpenRun
from gen_orchestrator.scheduling.run_ids import new_run_id
from gen_orchestrator.scheduling.spending import ExhaustedError, Spending
from gen_orchestrator.scheduling.waits import Waits
from gen_orchestrator.store.base import RunStore, StoreError, StoreFullError, StoreUnavailableError
from gen_worker.contract.run import InvokeOptions
from gen_worker.http.asgi import Request, RequestError
from gen_worker.http.headers import matches_etag, parse_prefer, preferred, whole_number
from gen_worker.http.idempotency import idempotency_key
from gen_worker.names import is_run_id

MAX_BODY_BYTES = 32 << 20  # of JSON: twice the limit of a payload, because numbers and base64 are longer in JSON
DEFAULT_WAIT_S = 60
MAX_WAIT_S = 3600
CANCEL_WAIT_S = 12.0
EVENT_STREAM = "text/event-stream"
NDJSON = "application/x-ndjson"


DECIDED_S = 0.01  # a pending delete is usually decided by then


class RunRoutes:
    """Handlers of `/v1/<owner>/<endpoint>/<function>[:tag]` and of single runs."""

    def __init__(
        self,
        registry: Registry,
        dispatcher: Dispatcher,
        store: RunStore,
        streams: RunStreams,
        receivers: WebhookReceivers,
        waits: Waits,
        files: RunFiles,
        objects: shown.RunObjects,
        spending: Spending,
    ) -> None:
        self._registry = registry
        self._dispatcher = dispatcher
        self._store = store
        self._streams = streams
        self._receivers = receivers
        self._waits = waits
        self._files = files
        self._objects = objects
        self._spending = spending
        self._memo = Memo()

    async def invoke(self, request: Request) -> None:
        """`POST /v1/{owner}/{endpoint}/{function}`."""
        parts = request.parts
        owner, endpoint = parts["owner"], parts["endpoint"]
        function, tag = function_and_tag(parts["function"])
        resolved = self.resolve(request, owner, endpoint, function, tag)
        if request.header(b"content-type")[:10].lower() == "multipart/":
            await self._invoke_form(request, resolved, owner, endpoint, function)
            return
        invocation = await _invocation(await request.body(MAX_BODY_BYTES), request.scope["path"], resolved)
        run = self._new_run(request, resolved, owner, endpoint, function, invocation)
        run, resolved = self._routed(run, resolved)
        if resolved.settings.memo_s and not run.idempotency_key and not run.webhook:
            memo_s = resolved.settings.memo_s
            submitted, how = await self._memo.submit(run, memo_s, lambda run: self.submit(run, resolved))
            await self._answer(request, submitted, {"x-memo": how})
            return
        volatile = not resolved.settings.durable and _is_waited_for(request, run)
        await self._answer(request, await self.submit(run, resolved, volatile=volatile))

    async def _invoke_form(self, request: Request, resolved: Resolved, owner: str, endpoint: str, function: str) -> None:
        """Like `invoke`, with files: they are stored with the run, and deleted if it is not accepted."""
        run_id, is_new = new_run_id(), False
        try:
            form = await read_form(request, self._files, owner, run_id, resolved.entry.input_schema)
            invocation = await _invocation(form.body, request.scope["path"], resolved)
            run = self._new_run(request, resolved, owner, endpoint, function, invocation)
            submitted = await self.submit(msgspec.structs.replace(run, id=run_id, fingerprint=form.digest), resolved)
            is_new = submitted.is_new
        except OSError as exc:
            raise not_kept(exc, "the files of the request were not stored, and no run was created") from None
        except StoreUnavailableError:
            is_new = True  # unknown whether it was accepted: retention deletes them if not
            raise
        finally:
            if not is_new:
                await asyncio.to_thread(self._files.remove, owner, run_id)
        await self._answer(request, submitted)

    async def put(self, request: Request) -> None:
        """`PUT /v1/runs/{run_id}`: like `invoke`, with an id chosen by the caller, and once for that id; `?function=`
        names the function.
        """
        run_id = request.parts["run_id"]
        if not is_run_id(run_id):
            raise RequestError(400, "validation", f"run id {run_id[:100]!r}; expected 1 to 128 letters, digits, '.', '_' or '-'")
        if request.has_header(b"idempotency-key"):
            raise RequestError(
                400,
                "validation",
                f"Idempotency-Key together with the run id {run_id!r}: a PUT runs once for its id, whatever the key; remove the header",
                error="invalid_idempotency_key",
            )
        body = await request.body(MAX_BODY_BYTES)
        target = request.query().get("function", "")
        if target.count("/") != 2 or not all(target.split("/")):
            raise RequestError(400, "validation", f"function={target[:100]!r}; expected owner/endpoint/function[:tag]")
        owner, endpoint, name = target.split("/")
        function, tag = function_and_tag(name)
        resolved = self.resolve(request, owner, endpoint, function, tag)
        run = self._new_run(request, resolved, owner, endpoint, function, await _invocation(body, target, resolved))
        run = msgspec.structs.replace(run, id=run_id)
        await self._answer(request, await self.submit(run, resolved))

    async def get(self, request: Request) -> None:
        """`GET /v1/runs/{run_id}[?wait=n]`; the file itself if the output is one and `Accept` names its type."""
        run, open_run = await self.find(request)
        wait = request.query().get("wait")
        if wait is not None:
            wait_s = whole_number(wait)
            if wait_s is None or wait_s > MAX_WAIT_S:
                raise RequestError(400, "validation", f"wait={wait[:20]!r}; expected seconds from 0 to {MAX_WAIT_S}")
            if open_run is not None:
                await open_run.wait(wait_s)
                run = open_run.run
        accept = request.header(b"accept")
        if accept and await self._streams.send_only_file(request, run, accept, {}):
            return
        waits = self._waits.of(open_run) if open_run is not None and not run.is_final else None
        outputs = await self._streams.outputs(run, open_run)
        body = self._objects.json(run, open_run, with_input=True, wait=waits, outputs=outputs)
        etag = f'"{hashlib.blake2b(body, digest_size=12).hexdigest()}"'
        headers = {"etag": etag, "vary": "accept"}
        if matches_etag(request.header(b"if-none-match"), etag):
            await request.answer(304, b"", headers=headers)
            return
        await request.answer(200, body, headers=headers)

    async def cancel(self, request: Request) -> None:
        """`POST /v1/runs/{run_id}/cancel`: answers when the run is over, or its time to stop has passed."""
        run, open_run = await self.find(request)
        if open_run is not None:
            await self._dispatcher.cancel(run.id)
            await open_run.wait(CANCEL_WAIT_S)
            run = open_run.run
        await request.answer(200, self._objects.json(run, open_run))

    async def retry(self, request: Request) -> None:
        """`POST /v1/runs/{run_id}/retry`: a new run with the payload of a finished one, which becomes its parent."""
        run, open_run = await self.find(request)
        if open_run is not None and not open_run.is_over:
            raise RequestError(409, "conflict", f"run {run.id} is still {open_run.status}; cancel it first, or wait for its end")
        if is_session(run):
            raise RequestError(409, "conflict", f"run {run.id} was a realtime session, whose frames are not stored; open a new one")
        resolved = self.resolve(request, run.owner, run.endpoint, run.function, run.tag)
        again = Run(
            id=new_run_id(),
            owner=run.owner,
            endpoint=run.endpoint,
            function=run.function,
            tag=run.tag,
            release_id=resolved.release_id,
            payload=run.payload,
            created_at=time.time(),
            max_attempts=run.max_attempts,
            priority=run.priority,
            timeout_ms=run.timeout_ms,
            invoker_id=invoker_of(request),
            parent_id=run.id,
            webhook=run.webhook,
            idempotency_key=idempotency_key(request),
            fingerprint=f"retry of {run.id}",
        )
        submitted = await self.submit(again, resolved)
        headers = {"location": f"/v1/runs/{submitted.run.id}", **_replayed(submitted)}
        await request.answer(202, self._objects.json(submitted.run, submitted.open), headers=headers)

    async def events(self, request: Request) -> None:
        """`GET /v1/runs/{run_id}/events`."""
        run, open_run = await self.find(request)
        await self._streams.follow(request, run, open_run)

    async def webhooks(self, request: Request) -> None:
        """`GET /v1/runs/{run_id}/webhooks`: the run's notifications, their receivers, and the result of each try."""
        run, _ = await self.find(request)
        deliveries = await asyncio.to_thread(self._store.deliveries_of, run.id)
        url = read_target(run.webhook).url if run.webhook else ""
        await request.answer(200, msgspec.json.encode({"data": [shown_delivery(each, run, url) for each in deliveries]}))

    # ---- used by other routes

    def resolve(self, request: Request, owner: str, endpoint: str, function: str, tag: str, *, is_session: bool = False) -> Resolved:
        """What a name means for this caller: a function, or with `is_session` a websocket handler."""
        if not caller_of(request).sees(owner):
            raise no_owner(owner, caller_of(request), "unknown_function")
        resolved = self._resolve(owner, endpoint, function, tag)
        if resolved.settings.is_session and not is_session:
            hint = f"connect to ws://{request.header(b'host')}/v1/{owner}/{endpoint}/{function} with a websocket client"
            raise RequestError(400, "validation", f"{function} is a websocket, which has no payload and no output", hint=hint)
        return resolved

    def _resolve(self, owner: str, endpoint: str, function: str, tag: str) -> Resolved:
        try:
            return self._registry.resolve(owner, endpoint, function, tag)
        except NotFoundError as exc:
            raise RequestError(404, "not_found", str(exc), error="unknown_function") from None

    async def find(self, request: Request) -> tuple[Run, OpenRun | None]:
        """The run in a path, and its memory state if it is open; `RequestError` 404."""
        run_id, caller = request.parts["run_id"], caller_of(request)
        open_run = self._dispatcher.open.get(run_id)
        if open_run is not None and open_run.is_shadow:
            open_run = None
        if open_run is not None and open_run.accepted is None and caller.sees(open_run.run.owner):
            return open_run.run, open_run
        run = await asyncio.to_thread(self._store.get, run_id) if is_run_id(run_id) else None
        if run is None or not caller.sees(run.owner):
            hint = "List them with: cozyctl runs list"
            raise RequestError(404, "not_found", f"no run {run_id[:100]!r}", hint=hint, error="unknown_run")
        return run, self._dispatcher.open.get(run_id)

    async def submit(self, run: Run, resolved: Resolved, *, volatile: bool = False) -> Submitted:
        """Accept a run; errors become HTTP errors. The release is decided here: if the resolved one was deleted
        meanwhile, the name is resolved again.
        """
        while True:
            try:
                return await self._submit(run, resolved, volatile=volatile)
            except ReleaseGoneError:
                await asyncio.sleep(DECIDED_S)
                resolved = self._resolve(run.owner, run.endpoint, run.function, run.tag)
                run = msgspec.structs.replace(run, release_id=resolved.release_id)

    async def _submit(self, run: Run, resolved: Resolved, *, volatile: bool) -> Submitted:
        run, resolved = self._routed(run, resolved)
        lane = self._dispatcher.lanes.lane(resolved.release_id, run.function, resolved.settings)
        try:
            submitted = await self._spending.submit(run, lane, volatile=volatile)
        except ExhaustedError as exc:
            raise BudgetError(exc.exhausted, time.time()) from None
        except AdmissionError as exc:
            refused = exc.refusal
            raise RequestError(
                429,
                "overloaded",
                refused.detail,
                hint=f"queue depth {refused.queue_depth}; try again in {refused.retry_after_s} s",
                headers={"retry-after": str(refused.retry_after_s), "x-queue-depth": str(refused.queue_depth)},
            ) from None
        except StoreFullError as exc:
            raise RequestError(507, "store_full", f"the run was not accepted: {exc}", headers={"retry-after": "5"}) from None
        except StoreUnavailableError as exc:
            text = f"the run was not accepted: {exc}"
            if exc.unknown:
                text = f"it is unknown whether the run was accepted: {exc}; send it again with the same Idempotency-Key"
            raise RequestError(503, "store_unavailable", text, headers={"retry-after": "2"}) from None
        if not submitted.is_new and run.fingerprint and submitted.run.fingerprint != run.fingerprint:
            what = f"Idempotency-Key {run.idempotency_key[:60]!r}" if run.idempotency_key else f"run id {run.id!r}"
            raise RequestError(
                422, "idempotency_key_reused", f"{what} was used for another request (run {submitted.run.id}); use a new one"
            )
        return submitted

    def _routed(self, run: Run, resolved: Resolved) -> tuple[Run, Resolved]:
        """The run for the tag's candidate, if the tag has one and the run's id selects it."""
        routed = self._registry.routed(resolved, run)
        return (run, resolved) if routed is resolved else (msgspec.structs.replace(run, release_id=routed.release_id), routed)

    def _new_run(self, request: Request, resolved: Resolved, owner: str, endpoint: str, function: str, invocation: Invocation) -> Run:
        options: InvokeOptions = invocation.options
        settings = resolved.settings
        now = time.time()
        start_timeout_s = options.start_timeout_s or settings.start_timeout_s
        webhook = webhook_target(request, options, self._receivers) if options.webhook else b""
        return Run(
            id=new_run_id(),
            owner=owner,
            endpoint=endpoint,
            function=function,
            tag=resolved.tag,
            release_id=resolved.release_id,
            payload=invocation.payload,
            created_at=now,
            max_attempts=settings.max_attempts,
            priority=options.priority,
            timeout_ms=round((options.timeout_s or settings.timeout_s) * 1000),
            expires_at=now + start_timeout_s if start_timeout_s else 0.0,
            idempotency_key=idempotency_key(request),
            fingerprint=invocation.fingerprint,
            invoker_id=invoker_of(request),
            webhook=webhook,
            traceparent=traceparent_of(request),
        )

    async def _keep(self, open_run: OpenRun) -> None:
        """The caller has waited long enough: a run that continues without a waiting caller is durable, like every other."""
        try:
            await self._dispatcher.keep(open_run)
        except StoreError as exc:
            raise RequestError(503, "store_unavailable", f"run {open_run.id} continues, but cannot be stored now: {exc}") from None

    async def _answer(self, request: Request, submitted: Submitted, more: Mapping[str, str] | None = None) -> None:
        open_run, run = submitted.open, submitted.run
        more = more or _replayed(submitted)
        accept = request.header(b"accept")
        if accept and preferred(accept, (EVENT_STREAM, NDJSON, "application/json")) in (EVENT_STREAM, NDJSON):
            await self._streams.follow(request, run, open_run, more)
            return
        prefer = request.header(b"prefer")
        respond_async, wait_s = parse_prefer(prefer) if prefer else (False, None)
        headers = {"location": f"/v1/runs/{run.id}", **more}
        applied = ["respond-async"] * respond_async + ([] if wait_s is None else [f"wait={wait_s}"])
        if applied:
            headers["preference-applied"] = ", ".join(applied)
        at_once = respond_async and wait_s is None
        if open_run is not None and not at_once:
            await open_run.wait(DEFAULT_WAIT_S if wait_s is None else wait_s)
            run = open_run.run
        if open_run is not None and open_run.volatile and not run.is_final:
            await self._keep(open_run)
            run = open_run.run
        if not run.is_final or at_once:
            await request.answer(202, self._objects.json(run, open_run), headers=headers)
            return
        status = shown.http_status(run)
        if status in (429, 503):
            headers["retry-after"] = "1"
        if accept and await self._streams.send_only_file(request, run, accept, headers):
            return
        body = self._objects.json(run, open_run, outputs=await self._streams.outputs(run, open_run))
        await request.answer(status, body, headers=headers)


def _replayed(submitted: Submitted) -> dict[str, str]:
    """Tells a caller that an earlier request has begun the run, by the same key or the same id."""
    return {} if submitted.is_new else {"idempotent-replayed": "true"}


def function_and_tag(name: str) -> tuple[str, str]:
    """The parts of `function[:tag]`; `RequestError` 400 for an invalid tag."""
    try:
        return split_tag(name)
    except TagNameError as exc:
        raise RequestError(400, "validation", str(exc), error="invalid_tag") from None


async def _invocation(body: bytes, path: str, resolved: Resolved) -> Invocation:
    schema = resolved.entry.input_schema if resolved.takes_bytes else None
    return await aside(len(body), lambda: read_invocation(body, path, schema))


def _is_waited_for(request: Request, run: Run) -> bool:
    """Whether a run may be stored after it is over: its caller waits, has no key to ask for it again, and wants no webhook."""
    return not run.idempotency_key and not run.webhook and not parse_prefer(request.header(b"prefer"))[0]
