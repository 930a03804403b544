"""Run a function for an HTTP caller: wait, answer later, or stream."""

import asyncio
import re
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path

import msgspec

from gen_worker.authoring.signature import FunctionSpec
from gen_worker.dev import answers
from gen_worker.dev.disconnects import DisconnectWatch, disconnected
from gen_worker.dev.envelope import RunOptions, read_envelope
from gen_worker.dev.runs import MAX_QUEUED, DevRun, RunBook
from gen_worker.dev.uploads import read_multipart
from gen_worker.errors import WorkerError
from gen_worker.execution.executor import Executor, RunRequest
from gen_worker.files.local_outputs import LocalOutputs
from gen_worker.http import sse
from gen_worker.http.asgi import Request, RequestError
from gen_worker.http.event_log import Reader
from gen_worker.names import did_you_mean
from gen_worker.outcome import outcome_of
from gen_worker.sources.listings import read_listings

MAX_BODY_BYTES = 256 << 20
MAX_WAIT_S = 3600.0
NDJSON = b"application/x-ndjson"
_WAIT = re.compile(r"\bwait=(\d{1,6})\b")


class Preference(msgspec.Struct, frozen=True):
    """What `Prefer` (RFC 7240) asks for."""

    respond_async: bool = False
    wait_s: float | None = None

    @classmethod
    def parse(cls, header: str) -> "Preference":
        found = _WAIT.search(header)
        return cls("respond-async" in header, min(float(found[1]), MAX_WAIT_S) if found else None)

    def applied(self) -> dict[str, str]:
        """The header that says which preference was honoured."""
        if self.respond_async:
            return {"preference-applied": "respond-async"}
        return {} if self.wait_s is None else {"preference-applied": f"wait={self.wait_s:.0f}"}


class Invoker:
    """Starts runs and answers for them."""

    def __init__(
        self,
        functions: Mapping[str, FunctionSpec],
        executor: Executor,
        book: RunBook,
        outputs: Path,
        max_file_bytes: int,
        run_dir: Path,
    ) -> None:
        self.functions = functions
        self._executor = executor
        self._book = book
        self._outputs = outputs
        self._max_file_bytes = max_file_bytes
        self._run_dir = run_dir
        self._watch = DisconnectWatch()
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, request: Request) -> None:
        """`POST /v1/run/{function}`."""
        spec = self.function(request.parts["function"])
        run, run_request, options = await self._accept(spec, request)
        prefer = request.header(b"prefer")
        accept = request.header(b"accept")
        if "text/event-stream" in accept or "application/x-ndjson" in accept:
            reader = Reader(run.log, 0)
            self._start(spec, run, run_request)
            await self.stream(request, run, reader, cancel_on_disconnect=options.cancel_on_disconnect)
        elif prefer and (preference := Preference.parse(prefer)) != Preference():
            self._start(spec, run, run_request)
            await self._answer_later(request, run, preference, options)
        else:
            await self._answer_now(request, spec, run, run_request, options, accept)

    async def warm_up(self, request: Request) -> None:
        """`POST /v1/warmup/{function}`: run, and throw the output away."""
        spec = self.function(request.parts["function"])
        run, run_request, _ = await self._accept(spec, request)
        await self._execute(spec, run, run_request)
        assert run.outcome is not None
        assert run.finished_s is not None
        duration_ms = round((run.finished_s - run.created_s) * 1000)
        body = {"duration_ms": duration_ms, "ok": run.outcome.success, "run_id": run.run_id}
        if not run.outcome.success:
            body["error_message"] = run.outcome.error_message
        await request.answer(answers.http_status(run.outcome), msgspec.json.encode(body))

    async def stream(self, request: Request, run: DevRun, reader: Reader, *, cancel_on_disconnect: bool) -> None:
        """Follow a run as server-sent events, or as NDJSON where that is accepted."""
        ndjson = "application/x-ndjson" in request.header(b"accept")
        await request.start(NDJSON if ndjson else sse.MEDIA_TYPE, {"x-run-id": run.run_id})
        render = answers.ndjson_lines if ndjson else answers.sse_frames
        gone = asyncio.ensure_future(disconnected(request))
        gone.add_done_callback(lambda done: None if done.cancelled() else self._left(run, reader, cancel_on_disconnect))
        try:
            while True:
                news = await reader.next(sse.HEARTBEAT_S)
                if gone.done():
                    return
                if news is None:
                    await request.write(b"\n" if ndjson else sse.HEARTBEAT)
                elif news[1]:
                    await request.write(render(*news))
                    reader.took(*news)
                else:
                    await request.write(answers.ndjson_done(run) if ndjson else answers.sse_done(run), last=True)
                    return
        finally:
            gone.cancel()
            reader.close()

    def function(self, name: str) -> FunctionSpec:
        """The function of a URL; `RequestError` 404 names the nearest one."""
        spec = self.functions.get(name)
        if spec is None:
            known = ", ".join(sorted(self.functions)) or "none"
            detail = f"no function {name[:100]!r}.{did_you_mean(name, self.functions)} Functions here: {known}"
            raise RequestError(404, "not_found", detail, error="unknown_function")
        return spec

    async def close(self) -> None:
        """Cancel what still runs and wait for it to be recorded."""
        for run in list(self._book.newest_first()):
            if not run.finished:
                run.token.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=5)

    async def _accept(self, spec: FunctionSpec, request: Request) -> tuple[DevRun, RunRequest, RunOptions]:
        uploads: dict[str, Path] = {}
        if request.header(b"content-type").startswith("multipart/"):
            folder = self._run_dir / f"upload-{secrets.token_hex(8)}"
            body, uploads = await read_multipart(request, spec.payload_type, folder, MAX_BODY_BYTES)
        else:
            body = await request.body(MAX_BODY_BYTES)
        try:
            payload, options = read_envelope(body)
            run = self._new_run(spec, options)
        except RequestError:
            _remove(uploads)
            raise
        return run, RunRequest(
            run_id=run.run_id,
            payload=payload,
            timeout_ms=options.timeout_ms,
            owner=options.owner,
            invoker_id=options.invoker_id,
            required_models=options.required_models,
            resolved_models=options.resolved_models,
            listings=read_listings(options.resolved_models),
            uploads=uploads,
        ), options  # fmt: skip

    def _new_run(self, spec: FunctionSpec, options: RunOptions) -> DevRun:
        if self._book.queued >= MAX_QUEUED:
            raise RequestError(429, "overloaded", f"{self._book.queued} runs are waiting; try again later")
        run = self._book.create(spec.name, options.run_id)
        if run is None:
            raise RequestError(409, "conflict", f"a run with the id {options.run_id!r} is in progress", error="duplicate_run_id")
        return run

    async def _execute(self, spec: FunctionSpec, run: DevRun, request: RunRequest) -> None:
        limit = spec.resources.max_concurrency

        def when_idle() -> None:
            self._book.leave(spec.name)
            if request.uploads:
                _remove(request.uploads)

        try:
            if not self._book.admit_now(spec.name, limit):
                await self._book.admit(run, limit)
        except WorkerError as exc:  # stopped while it waited for a slot
            _remove(request.uploads)
            outcome = outcome_of(exc)
        else:
            run.start()
            store = LocalOutputs(self._outputs, self._max_file_bytes, run.add_file)
            outcome = await self._executor.run(spec, request, run, run.token, store, when_idle)
        run.finish(outcome)
        self._book.finished(run)

    def _start(self, spec: FunctionSpec, run: DevRun, request: RunRequest) -> None:
        task = asyncio.ensure_future(self._execute(spec, run, request))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer_now(
        self, request: Request, spec: FunctionSpec, run: DevRun, run_request: RunRequest, options: RunOptions, accept: str
    ) -> None:
        if options.cancel_on_disconnect:
            self._watch.add(request, run)
        try:
            await self._execute(spec, run, run_request)
        finally:
            self._watch.discard(run)
        await self._send_result(request, run, accept)

    async def _send_result(self, request: Request, run: DevRun, accept: str) -> None:
        assert run.outcome is not None
        if accept and run.outcome.success and len(run.files) == 1 and (run.files[0].mime_type or "-") in accept:
            data = await asyncio.to_thread(run.files[0].read_bytes)
            await request.answer(200, data, (run.files[0].mime_type or "").encode(), {"x-run-id": run.run_id})
            return
        status = answers.http_status(run.outcome)
        headers = {"retry-after": "1"} if status == 503 else None
        await request.answer(status, answers.run_answer(run), headers=headers)

    async def _answer_later(self, request: Request, run: DevRun, preference: Preference, options: RunOptions) -> None:
        headers = {**preference.applied(), "location": f"/v1/runs/{run.run_id}"}
        if not preference.respond_async:
            if options.cancel_on_disconnect:
                self._watch.add(request, run)
            finished = await run.wait(preference.wait_s)
            self._watch.discard(run)
            if finished:
                assert run.outcome is not None
                await request.answer(answers.http_status(run.outcome), answers.run_answer(run), headers=headers)
                return
        await request.answer(202, answers.run_object_json(run), headers=headers)

    def _left(self, run: DevRun, reader: Reader, cancel: bool) -> None:
        reader.wake()
        if cancel and not run.finished:
            run.token.cancel()


def _remove(uploads: Mapping[str, Path]) -> None:
    for folder in {path.parent for path in uploads.values()}:
        shutil.rmtree(folder, ignore_errors=True)
