"""The dev HTTP runner: joins its parts and defines its routes."""

import inspect
import mimetypes
import time
from collections.abc import Awaitable, Mapping
from pathlib import Path
from typing import Any

import msgspec
from starlette.routing import Router
from starlette.types import Receive, Scope, Send

from gen_worker import __version__
from gen_worker.authoring.signature import FunctionSpec
from gen_worker.contract.runner import RUNNER_STATUSES, RunnerRun
from gen_worker.dev import answers
from gen_worker.dev.catalog import DevCatalog
from gen_worker.dev.invoke import Invoker
from gen_worker.dev.model_routes import ModelRoutes
from gen_worker.dev.own_routes import own_routes
from gen_worker.dev.realtime import Realtime
from gen_worker.dev.run_lines import RunLines
from gen_worker.dev.runs import DevRun, RunBook
from gen_worker.dev.serving import Serving
from gen_worker.execution.admission import Admission
from gen_worker.execution.build import ExecutionSettings, build_execution
from gen_worker.files.local_outputs import LocalOutputs
from gen_worker.front_doors.cog.routes import CogDoor, cog_routes
from gen_worker.front_doors.errors import error_answer
from gen_worker.front_doors.files import Files
from gen_worker.front_doors.inside import Inside
from gen_worker.front_doors.mcp.routes import McpDoor
from gen_worker.front_doors.openai.routes import ModelList, openai_routes
from gen_worker.front_doors.runs import Runs
from gen_worker.http.asgi import Endpoint, Handler, Request, RequestError, Shortcut, build_router
from gen_worker.http.event_log import Reader
from gen_worker.http.files import send_file
from gen_worker.http.headers import matches_etag
from gen_worker.http.hosts import HostPolicy
from gen_worker.http.openapi import openapi_document
from gen_worker.http.page import Page
from gen_worker.http.queries import names_in, only_known, only_with
from gen_worker.http.sse import last_event_id
from gen_worker.http.zipped import answer_zipped
from gen_worker.log import Log
from gen_worker.refs import ModelSpec
from gen_worker.sources.keyspace import Keyspace

PAGE_SIZE = 50
MAX_WAIT_S = 3600
_SHOWN_INLINE = ("image/png", "image/jpeg", "image/gif", "image/webp", "audio/", "video/", "text/plain")


class DevConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What a dev runner is built from."""

    functions: tuple[FunctionSpec, ...]
    models_by_function: Mapping[str, Mapping[str, ModelSpec]]
    execution: ExecutionSettings
    outputs: Path
    run_dir: Path
    endpoint_name: str = ""
    hosts: HostPolicy = HostPolicy()
    talks: bool = False  # print a line for each run and each refused request


RUN_QUERY = ("events",)


class DevApp:
    """ROOT of the dev runner. Build it on the event loop that serves it."""

    def __init__(self, config: DevConfig, log: Log) -> None:
        self._config = config
        self._outputs = LocalOutputs(config.outputs)
        self._execution = build_execution(config.execution, config.run_dir, log, saved_file=self._lookup)
        self._executor, self._models = self._execution.executor, self._execution.models
        limits = config.execution.limits
        self._serving = Serving()
        admission = Admission(limits.worker_max_concurrency)
        self._book = RunBook(admission)
        self._lines = RunLines(log) if config.talks else None
        self._invoker = Invoker(
            self._serving,
            self._executor,
            self._book,
            admission,
            config.outputs,
            limits.upload_bytes,
            config.run_dir,
            log,
            self._lines,
            config.endpoint_name,
        )
        self._realtime = Realtime(
            self._serving,
            self._executor,
            self._book,
            config.outputs,
            config.hosts,
            self._lines,
            self._invoker.calls,
            max_file_bytes=limits.upload_bytes,
            max_frame_bytes=limits.worker_max_ws_frame_bytes,
        )
        self._model_routes = ModelRoutes(self._models, self._serving)
        self._catalog = DevCatalog(self._serving, self._invoker.function, lambda name: self._models.keyspace.keys_of(name))
        self._log = log
        self._began_s = time.monotonic()
        self.adopt(config.functions, config.models_by_function)
        run = Endpoint(only_with(RUN_QUERY, self._invoker.run), self._on_error, config.hosts)
        self._routes = Shortcut("POST", "/v1/run/", "function", run, self._router())

    def asgi(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """The application."""
        self._executor.mailbox.catch_up()  # so that a caller who was answered by a function's thread finds its run ended
        return self._routes(scope, receive, send)

    def adopt(self, functions: tuple[FunctionSpec, ...], models_by_function: Mapping[str, Mapping[str, ModelSpec]]) -> None:
        """Serve these functions from now on. Loaded models, runs in progress and open sessions stay."""
        self._serving.replace(functions)
        self._models.select_by(Keyspace(models_by_function))
        self._openapi: bytes | None = None

    async def make_ready(self) -> None:
        """Import what the models of its functions need, and build models that are on disk ahead, while serving."""
        functions = (*self._serving.functions.values(), *self._serving.websockets.values())
        self._execution.imports.begin(functions)
        await self._models.find_declared(functions)

    def refuse_code(self, problem: str) -> None:
        """The current code has a mistake: requests for a missing function are told so. The functions served so far stay."""
        self._serving.refuse(problem)

    def cancel_runs(self) -> None:
        """Tell every run and session to stop, and waiting ones not to begin."""
        self._realtime.end_all("worker_draining")
        self._invoker.cancel_runs()

    async def close(self) -> None:
        self._realtime.end_all("worker_draining")
        await self._invoker.close()
        self._execution.close()

    def _router(self) -> Router:
        inside = Inside(lambda: self._routes)
        cog = CogDoor(self._catalog, Runs(inside), Files(inside))
        page, models = Page("dev"), ModelList(self._catalog)
        known = {**names_in(own_routes()), ("POST", "/v1/run/{function}"): RUN_QUERY, ("POST", "/v1/warmup/{function}"): RUN_QUERY}
        routes: list[tuple[str, str, Handler]] = [
            ("POST", "/v1/run/{function}", self._invoker.run),
            ("POST", "/v1/warmup/{function}", self._invoker.warm_up),
            ("GET", "/v1/realtime/{function}", self._realtime.open),
            ("GET", "/v1/runs", self._list_runs),
            ("GET", "/v1/runs/{run_id}", self._get_run),
            ("GET", "/v1/runs/{run_id}/events", self._follow_run),
            ("POST", "/v1/runs/{run_id}/cancel", self._cancel_run),
            ("GET", "/v1/files/{ref:path}", self._get_file),
            ("GET", "/v1/status", self._status),
            ("GET", "/v1/models/status", self._model_routes.status),
            ("POST", "/v1/models/prefetch", self._model_routes.prefetch),
            ("POST", "/v1/models/load", self._model_routes.load),
            ("POST", "/v1/models/unload", self._model_routes.unload),
            ("GET", "/v1/models", models.list),
            *openai_routes(self._catalog, Runs(inside), Files(inside)),
            *cog_routes(cog),
            ("GET", "/health-check", cog.health),
            ("POST", "/mcp", McpDoor(self._catalog, Runs(inside)).post),
            ("GET", "/v1/models/{model:path}", models.get),
            ("GET", "/livez", self._livez),
            ("GET", "/readyz", self._readyz),
            ("GET", "/openapi.json", self._get_openapi),
            ("GET", "/", page.answer),
            ("GET", "/docs", page.answer),
            ("GET", "/docs/{name}", page.answer),
        ]
        return build_router(only_known(routes, known), self._on_error, self._config.hosts)

    async def _status(self, request: Request) -> None:
        body = {
            "code": {"problem": self._serving.problem or None, "revision": self._serving.revision},
            "functions": sorted(self._serving.functions),
            "model_cache": self._execution.cache.get_stats().to_dict(),
            "ok": True,
            "runs": {"active": self._book.active, "queued": self._book.queued},
            "threads_left": self._executor.threads.left(),
            "uptime_s": round(time.monotonic() - self._began_s, 3),
            "version": __version__,
            "websockets": sorted(self._serving.websockets),
        }
        await request.answer(200, _sorted_json(body))

    async def _livez(self, request: Request) -> None:
        await request.answer(200, b'{"ok":true}')

    async def _readyz(self, request: Request) -> None:
        if not self._serving.functions and not self._serving.websockets:
            raise RequestError(503, "not_ready", "no functions are loaded")
        await request.answer(200, b'{"ok":true}')

    async def _list_runs(self, request: Request) -> None:
        query = request.query()
        status, function, cursor = query.get("status"), query.get("function"), query.get("cursor")
        if status is not None and status not in RUNNER_STATUSES:
            words = ", ".join(RUNNER_STATUSES)
            raise RequestError(400, "validation", f"status={status[:40]!r} is not a run status; expected one of: {words}")
        if cursor is not None and self._book.get(cursor) is None:
            raise RequestError(400, "validation", f"cursor={cursor[:40]!r} is no longer known; start again without a cursor")
        page: list[RunnerRun] = []
        more = False
        skipping = cursor is not None
        for run in self._book.newest_first():
            if skipping:
                skipping = run.run_id != cursor
                continue
            if (status and run.status != status) or (function and run.function != function):
                continue
            if len(page) == PAGE_SIZE:
                more = True
                break
            page.append(answers.run_object(run))
        await request.answer(200, msgspec.json.encode({"data": page, "next_cursor": page[-1].id if more else None}))

    async def _get_run(self, request: Request) -> None:
        run = self._run(request)
        wait = request.query().get("wait")
        if wait is not None:
            await run.wait(request.number(wait, "wait", MAX_WAIT_S))
        etag = f'"{run.log.last_seq}-{run.status}"'
        if matches_etag(request.header(b"if-none-match"), etag):
            await request.answer(304, b"", headers={"etag": etag})
            return
        await request.answer(200, answers.run_object_json(run), headers={"etag": etag})

    async def _follow_run(self, request: Request) -> None:
        run = self._run(request)
        try:
            after = last_event_id(request.header(b"last-event-id") or request.query().get("after", ""))
        except ValueError as exc:
            raise RequestError(400, "validation", str(exc)) from None
        if run.finished and after > run.log.last_seq:
            await request.answer(204, b"")  # all events were seen: tells an EventSource not to reconnect
            return
        await self._invoker.stream(request, run, Reader(run.log, after), cancel_on_disconnect=False)

    async def _cancel_run(self, request: Request) -> None:
        run = self._run(request)
        if not run.finished:
            run.token.cancel()
            await run.wait(5)
        await request.answer(200, answers.run_object_json(run))

    def _run(self, request: Request) -> DevRun:
        run = self._book.get(request.parts["run_id"])
        if run is None:
            raise RequestError(
                404,
                "not_found",
                f"no run {request.parts['run_id'][:100]!r}; this runner keeps the last runs in memory only",
                error="unknown_run",
            )
        return run

    async def _get_file(self, request: Request) -> None:
        path = self._lookup(request.parts["ref"])
        if path is None:
            raise RequestError(404, "not_found", f"no file {request.parts['ref'][:200]!r}", error="unknown_file")
        headers = {"x-content-type-options": "nosniff", "content-security-policy": "sandbox"}
        if not (mimetypes.guess_type(path.name)[0] or "").startswith(_SHOWN_INLINE):
            headers["content-disposition"] = "attachment"
        await send_file(request, path, headers)

    def _lookup(self, ref: str) -> Path | None:
        """The saved file for a ref; None when it is not a file, whatever the file system says."""
        return self._outputs.find(ref)

    async def _get_openapi(self, request: Request) -> None:
        if self._openapi is None:
            name = self._config.endpoint_name or "functions"
            specs = self._serving.functions.values()
            entries = [self._catalog.entry(spec) for spec in specs]
            described = {spec.name: inspect.getdoc(spec.function) or "" for spec in specs}
            document = openapi_document(entries, name, __version__, own_routes(), [RunnerRun], described)
            document["x-websockets"] = [_described(spec) for spec in self._serving.websockets.values()]
            self._openapi = msgspec.json.encode(document)  # fields stay in the author's order
        await answer_zipped(request, self._openapi)

    async def _on_error(self, request: Request, exc: Exception) -> None:
        if isinstance(exc, RequestError):
            if self._lines is not None:
                self._lines.refused(request.scope["method"], request.scope["path"], exc.status, str(exc))
            path = request.scope["path"]
            body = exc.problem(path)
            headers = {**exc.headers}
            if exc.status in (429, 503):
                headers["retry-after"] = "1"
            if exc.status in (408, 413):
                headers["connection"] = "close"  # the rest of the body is not read
            await request.answer(exc.status, *error_answer(path, body, headers))
            return
        self._log.error("runner.failed", path=request.scope["path"], error=repr(exc))
        failure = {"error_type": "internal", "run_id": "", "safe_message": "internal error", "success": False}
        await request.answer(500, msgspec.json.encode(failure))


def _described(spec: FunctionSpec) -> dict[str, str]:
    """A websocket in the OpenAPI document, which has no notation for it."""
    return {"name": spec.name, "path": f"/v1/realtime/{spec.name}", "description": inspect.getdoc(spec.function) or ""}


def _sorted_json(value: Any) -> bytes:
    return msgspec.json.encode(value, order="sorted")
