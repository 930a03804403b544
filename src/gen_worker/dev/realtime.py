"""`GET /v1/realtime/{function}`: a websocket to a handler, with the same reasons and limits as a session on the platform."""

from collections.abc import Callable
from pathlib import Path

import msgspec

from gen_worker.authoring.signature import FunctionSpec
from gen_worker.dev.run_lines import RunLines
from gen_worker.dev.runs import DevRun, RunBook
from gen_worker.dev.serving import Serving
from gen_worker.events import RunEvent
from gen_worker.execution.admission import Refusal
from gen_worker.execution.children import LocalCalls
from gen_worker.execution.executor import Executor
from gen_worker.execution.realtime import Session
from gen_worker.execution.request import RunRequest
from gen_worker.files.local_outputs import LocalOutputs
from gen_worker.http.asgi import Request, RequestError, check_page
from gen_worker.http.hosts import HostPolicy
from gen_worker.http.sessions import MAX_TIMEOUT_MS, close_code, refuse, wanted_id
from gen_worker.http.websocket import WebSocket, accept_fields
from gen_worker.names import did_you_mean
from gen_worker.outcome import Outcome
from gen_worker.wire.realtime import MAX_FRAME_BYTES

_OPTIONS = ("run_id", "timeout_ms", "owner", "invoker_id")


class Realtime:
    """Opens sessions. Unlike a run, a session does not wait for a slot: its client is told, and may come again."""

    def __init__(
        self,
        serving: Serving,
        executor: Executor,
        book: RunBook,
        outputs: Path,
        hosts: HostPolicy,
        lines: RunLines | None,
        calls: LocalCalls,
        *,
        max_file_bytes: int,
        max_frame_bytes: int,
    ) -> None:
        self._serving = serving
        self._executor = executor
        self._book = book
        self._outputs = outputs
        self._hosts = hosts
        self._lines = lines
        self._max_file_bytes = max_file_bytes
        self._calls = calls
        self._max_frame_bytes = max_frame_bytes
        self._max_message_bytes = min(max_frame_bytes or MAX_FRAME_BYTES, MAX_FRAME_BYTES)
        self._open: set[_Client] = set()

    def end_all(self, reason: str) -> None:
        """End every session, and tell each client why."""
        for client in list(self._open):
            client.end(reason)

    async def open(self, request: Request) -> None:
        """Problems before the upgrade are HTTP answers. A missing slot is reported by a close code, which a page can read."""
        check_page(request, self._hosts)
        spec = self._function(request.parts["function"])
        fields = accept_fields(request)
        options = _options(request)
        refusal = self._book.take(spec.name, spec.resources.max_concurrency)
        if refusal is not None:
            self._refuse(request, spec, refusal)
            return
        try:
            run = self._book.create(spec.name, options.run_id)
            if run is None:
                raise RequestError(409, "conflict", f"a run with the id {options.run_id!r} is in progress", error="duplicate_run_id")
            client = _Client(run, self._book, self._lines, self._open)
            session = Session(spec, client, self._executor, max_frame_bytes=self._max_frame_bytes, token=run.token)
            socket = WebSocket(client, max_message_bytes=self._max_message_bytes)
            client.join(session, socket)
            store = LocalOutputs(self._outputs, self._max_file_bytes, run.add_file)
            request.scope["upgrade"](fields, socket)
        except BaseException:
            self._book.leave(spec.name)  # nothing was begun
            raise
        self._open.add(client)
        run.start()
        options = msgspec.structs.replace(options, run_id=run.run_id)
        session.start(msgspec.structs.replace(options, children=self._calls.of_run(options, spec.name, store)), store)

    def _refuse(self, request: Request, spec: FunctionSpec, refusal: Refusal) -> None:
        if self._lines is not None:
            self._lines.session_refused(spec.name, refusal)
        refuse(request, refusal)

    def _function(self, name: str) -> FunctionSpec:
        spec = self._serving.websockets.get(name)
        if spec is None:
            known = ", ".join(sorted(self._serving.websockets)) or "none"
            detail = f"no websocket {name[:100]!r}.{did_you_mean(name, self._serving.websockets)} Websockets here: {known}"
            hint = f"{name} is called by POST /v1/run/{name}" if name in self._serving.functions else None
            raise RequestError(404, "not_found", detail, error="unknown_function", hint=hint)
        return spec


class _Client:
    """Connects a session and its websocket in both directions. It is in `sessions` until the session is over."""

    def __init__(self, run: DevRun, book: RunBook, lines: RunLines | None, sessions: "set[_Client]") -> None:
        self._run = run
        self._book = book
        self._lines = lines
        self._sessions = sessions
        self._session: Session | None = None
        self._socket: WebSocket | None = None
        self._frames_in = self._frames_out = 0

    def join(self, session: Session, socket: WebSocket) -> None:
        self._session, self._socket = session, socket
        self._run.is_session = True

    # Reports of the session.

    @property
    def largest_bytes(self) -> int:
        return MAX_FRAME_BYTES

    def send(self, data: bytes, *, is_text: bool, taken: Callable[[], None]) -> None:
        self._frames_out += 1
        if self._socket is not None:
            self._socket.send(data, is_text=is_text, taken=taken)

    def took(self, size_bytes: int) -> None:
        if self._socket is not None and self._socket.holds:
            self._socket.go_on()

    def emit(self, event: RunEvent) -> None:
        self._run.emit(event)
        if self._lines is not None:
            self._lines.said(self._run, [event])

    def ended(self, reason: str, outcome: Outcome) -> None:
        self._sessions.discard(self)
        if self._socket is not None:
            self._socket.close(close_code(reason), reason)
        self._run.finish(outcome)
        self._book.finished(self._run)
        if self._lines is not None:
            self._lines.session_ended(self._run, reason, frames_in=self._frames_in, frames_out=self._frames_out)
        self._socket = None  # it refers back to this

    def released(self) -> None:
        self._book.leave(self._run.function)
        self._session = None

    # Reports of the websocket.

    def message(self, data: bytes) -> bool:
        session = self._session
        if session is None:
            return True
        taken = session.offer(data)
        self._frames_in += taken
        return taken

    def too_large(self) -> None:
        self.end("frame_too_large")

    def left(self) -> None:
        if self._session is not None:
            self._session.leave()

    def idle(self) -> None:
        self.end("idle_timeout")

    def stopping(self) -> None:
        self.end("worker_draining")

    def end(self, reason: str) -> None:
        if self._session is not None:
            self._session.end(reason)


def _options(request: Request) -> RunRequest:
    """The options of a run in the query: `?timeout_ms=60000&run_id=a`."""
    query = request.query()
    for name in query:
        if name not in _OPTIONS:
            known = ", ".join(_OPTIONS)
            detail = f"unknown option {name[:100]!r}.{did_you_mean(name[:100], _OPTIONS)} Options are: {known}"
            raise RequestError(400, "validation", detail, error="unknown_option")
    run_id = wanted_id(query)
    timeout_ms = request.number(query.get("timeout_ms", "0"), "timeout_ms", MAX_TIMEOUT_MS)
    return RunRequest(run_id, b"", timeout_ms=timeout_ms, owner=query.get("owner"), invoker_id=query.get("invoker_id"))
