"""Runs a function for an HTTP caller: waits, answers later, or streams."""

import asyncio
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType

import msgspec

from gen_worker.authoring.signature import FunctionSpec
from gen_worker.dev import answers
from gen_worker.dev.accept import Accepted, accept_run
from gen_worker.dev.disconnects import DisconnectWatch
from gen_worker.dev.early import CallersAnswer
from gen_worker.dev.run_lines import RunLines
from gen_worker.dev.runs import DevRun, RunBook
from gen_worker.dev.serving import Serving
from gen_worker.errors import CanceledError, WorkerError
from gen_worker.events import RunEvent
from gen_worker.execution.admission import Admission
from gen_worker.execution.children import LocalCalls
from gen_worker.execution.executor import Executor
from gen_worker.files.local_outputs import LocalOutputs
from gen_worker.http import sse
from gen_worker.http.asgi import Request, RequestError
from gen_worker.http.event_log import Reader
from gen_worker.http.headers import asks_for, parse_prefer, preferred
from gen_worker.log import Log
from gen_worker.names import did_you_mean
from gen_worker.outcome import Outcome, outcome_of

SSE, NDJSON = "text/event-stream", "application/x-ndjson"
STREAMED = (SSE, NDJSON, "application/json")
PLAIN = ("application/json",)


class _Hooks:
    """Passes the executor's reports about a run to its record."""

    def __init__(self, run: DevRun, book: RunBook, release: ExitStack | None, lines: RunLines | None) -> None:
        self.emit_all = run.emit_all if lines is None else self._emit_and_say
        self._lines = lines
        self.on_ready = run.on_ready
        self._run = run
        self._book = book
        self._release = release

    @property
    def ready(self) -> bool:
        return self._run.ready

    def ended(self, outcome: Outcome) -> None:
        self._run.finish(outcome)
        self._book.finished(self._run)
        if self._lines is not None:
            self.emit_all = self._run.emit_all  # it referred back to this
            self._lines.ended(self._run)

    def _emit_and_say(self, batch: list[RunEvent]) -> None:
        self._run.emit_all(batch)
        if self._lines is not None:
            self._lines.said(self._run, batch)

    def released(self) -> None:
        """The author's code has ended: its slot and its files are free."""
        self._book.leave(self._run.function)
        if self._release is not None:
            self._release.close()


class Invoker:
    """Starts runs and answers their callers."""

    def __init__(
        self,
        serving: Serving,
        executor: Executor,
        book: RunBook,
        admission: Admission,
        outputs: Path,
        max_file_bytes: int,
        run_dir: Path,
        log: Log,
        lines: RunLines | None = None,
        endpoint: str = "",
    ) -> None:
        self._serving = serving
        self._lines = lines
        self._log = log
        self._executor = executor
        self._book = book
        self._outputs = outputs
        self._max_file_bytes = max_file_bytes
        self._run_dir = run_dir
        self._watch = DisconnectWatch()
        self.calls = LocalCalls(lambda: serving.functions, executor, admission, endpoint)
        self._called_outputs = LocalOutputs(outputs, max_file_bytes)  # files saved by a called function are not the run's own
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, request: Request) -> None:
        """`POST /v1/run/{function}`."""
        spec = self.function(request.parts["function"])
        accepted = await accept_run(spec, request, self._book, self._run_dir)
        run = accepted.run
        run.warnings += self._serving.warnings()
        accept, prefer = request.header(b"accept"), request.header(b"prefer")
        media = preferred(accept, STREAMED) if accept else None
        respond_async, wait_s = parse_prefer(prefer) if prefer else (False, None)
        if media in (SSE, NDJSON):
            reader = Reader(run.log, 0)
            self._start(spec, accepted)
            await self.stream(request, run, reader, cancel_on_disconnect=accepted.cancels, headers=accepted.headers)
        elif respond_async or wait_s is not None:
            self._start(spec, accepted)
            await self._answer_later(request, accepted, respond_async, wait_s)
        else:
            await self._answer_now(request, spec, accepted)

    async def warm_up(self, request: Request) -> None:
        """`POST /v1/warmup/{function}`: run, and drop the output."""
        spec = self.function(request.parts["function"])
        accepted = await accept_run(spec, request, self._book, self._run_dir)
        run = accepted.run
        await self._execute(spec, accepted)
        assert run.outcome is not None
        assert run.finished_s is not None
        duration_ms = round((run.finished_s - run.created_s) * 1000)
        body = {"duration_ms": duration_ms, "ok": run.outcome.success, "run_id": run.run_id}
        if not run.outcome.success:
            body["error_message"] = run.outcome.error_message
        await request.answer(answers.http_status(run.outcome), msgspec.json.encode(body))

    async def stream(
        self,
        request: Request,
        run: DevRun,
        reader: Reader,
        *,
        cancel_on_disconnect: bool,
        headers: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Follow a run as server-sent events, or as NDJSON if the client accepts that."""
        ndjson = preferred(request.header(b"accept"), STREAMED) == NDJSON
        await request.start(NDJSON.encode() if ndjson else sse.MEDIA_TYPE, {"x-run-id": run.run_id, **headers})
        if request.scope["method"] == "HEAD":
            reader.close()
            await request.write(b"", last=True)
            return
        render = answers.ndjson_lines if ndjson else answers.sse_frames
        every = bool(request.scope["query_string"]) and request.query().get("events") == "all"
        gone = asyncio.ensure_future(request.left())
        gone.add_done_callback(lambda done: None if done.cancelled() else self._left(run, reader, cancel_on_disconnect))
        try:
            while True:
                news = await reader.next(sse.HEARTBEAT_S)
                if gone.done():
                    return
                if news is None:
                    await request.write(b"\n" if ndjson else sse.HEARTBEAT)
                elif news[1]:
                    shown = render(*news, every=every)
                    if shown:
                        await request.write(shown)
                    reader.took(*news)
                else:
                    await request.write(answers.ndjson_done(run) if ndjson else answers.sse_done(run), last=True)
                    return
        finally:
            gone.cancel()
            reader.close()

    def function(self, name: str) -> FunctionSpec:
        """The function in a URL; `RequestError` 404 names the nearest one."""
        spec = self._serving.functions.get(name)
        if spec is None:
            known = ", ".join(sorted(self._serving.functions)) or "none"
            detail = f"no function {name[:100]!r}.{did_you_mean(name, self._serving.functions)} Functions here: {known}"
            hint = f"{name} is a websocket: connect to ws://HOST:PORT/v1/realtime/{name}" if name in self._serving.websockets else None
            if hint is None and self._serving.problem:
                hint = f"the current code has an error: {self._serving.problem}"
            raise RequestError(404, "not_found", detail, error="unknown_function", hint=hint)
        return spec

    def cancel_runs(self) -> None:
        """Tell every run to stop, and waiting ones not to begin. A realtime session ends with its own reason (`Realtime.end_all`)."""
        for run in list(self._book.newest_first()):
            if not run.finished and not run.is_session:
                run.token.cancel()

    async def close(self) -> None:
        """Cancel running work and wait until it is recorded."""
        self.cancel_runs()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=5)

    async def _execute(self, spec: FunctionSpec, accepted: Accepted, caller: Request | None = None) -> None:
        """Bring a run to its end, whatever happens. What was taken for it is given back when the author's code has
        ended.

        `caller`: set when the caller only waits for the run's end, and may be answered from the function's thread.
        """
        run, request, release = accepted.run, accepted.request, accepted.release
        if request is None:  # its idempotency key started it before
            await run.wait(None)
            return
        limit = spec.resources.max_concurrency
        hooks = _Hooks(run, self._book, release, self._lines)
        end: BaseException = RuntimeError("the runner ended this run")  # used if no other error follows
        admitted = handed_over = False
        try:
            if not self._book.admit_now(spec.name, limit):
                await self._book.admit(run, limit)
            admitted = True
            run.start()
            store = LocalOutputs(self._outputs, self._max_file_bytes, run.add_file)
            request = msgspec.structs.replace(request, children=self.calls.of_run(request, spec.name, self._called_outputs))
            self._executor.start(spec, request, hooks, run.token, store, self._early(run, caller))
            handed_over = True  # the executor gives back what was taken, when the author's code has ended
            await run.wait(None)
        except WorkerError as exc:  # stopped while it waited for a slot
            end = exc
        except asyncio.CancelledError:
            end = CanceledError("canceled")
            run.token.cancel()
            raise
        finally:
            if not handed_over:
                if admitted:
                    hooks.released()
                elif release is not None:
                    release.close()
            if not run.finished:
                hooks.ended(outcome_of(end))

    def _start(self, spec: FunctionSpec, accepted: Accepted) -> None:
        task = asyncio.ensure_future(self._execute(spec, accepted))
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._log.error("runner.failed", error=repr(task.exception()))

    async def _answer_now(self, request: Request, spec: FunctionSpec, accepted: Accepted) -> None:
        run = accepted.run
        if accepted.cancels:
            self._watch.add(request, run)
        try:
            await self._execute(spec, accepted, request)
        finally:
            if accepted.cancels:
                self._watch.discard(run)
        if not request.finish_direct():
            await self._send_result(request, accepted)

    def _early(self, run: DevRun, caller: Request | None) -> CallersAnswer | None:
        """Only for a run that is alone: with many runs, one wake-up of the loop serves all, and writing threads would
        only wait for it.
        """
        if caller is None or self._book.active > 1:
            return None
        direct = caller.direct()
        return None if direct is None else CallersAnswer(run, direct)

    async def _send_result(self, request: Request, accepted: Accepted, headers: Mapping[str, str] = MappingProxyType({})) -> None:
        run, accept = accepted.run, request.header(b"accept")
        assert run.outcome is not None
        headers = {**headers, **accepted.headers}
        if accept and run.outcome.success and len(run.files) == 1:
            (file,) = run.files
            kind = file.mime_type or "application/octet-stream"
            if kind != "application/json" and asks_for(accept, kind):
                try:
                    data = await asyncio.to_thread(file.read_bytes)
                except OSError as exc:
                    raise RequestError(404, "not_found", f"{file.ref!r} cannot be read: {exc.strerror}", error="unknown_file") from None
                await request.answer(200, data, kind.encode(), {**headers, "x-run-id": run.run_id})
                return
        status = answers.http_status(run.outcome)
        if status == 503:
            headers = {**headers, "retry-after": "1"}
        as_list = bool(accept) and preferred(accept, PLAIN) == "application/json"
        await request.answer(status, answers.run_answer(run, as_list=as_list), headers=headers)

    async def _answer_later(self, request: Request, accepted: Accepted, respond_async: bool, wait_s: int | None) -> None:
        run = accepted.run
        applied = ["respond-async"] * respond_async + ([] if wait_s is None else [f"wait={wait_s}"])
        headers = {"preference-applied": ", ".join(applied), "location": f"/v1/runs/{run.run_id}", **accepted.headers}
        if wait_s is not None:
            # A caller who asked for a later answer may leave: that cancels nothing.
            cancels = accepted.cancels and not respond_async
            if cancels:
                self._watch.add(request, run)
            try:
                finished = await run.wait(wait_s)
            finally:
                if cancels:
                    self._watch.discard(run)
            if finished:
                await self._send_result(request, accepted, headers)
                return
        await request.answer(202, answers.run_object_json(run), headers=headers)

    def _left(self, run: DevRun, reader: Reader, cancel: bool) -> None:
        reader.wake()
        if cancel and not run.finished:
            run.token.cancel()
