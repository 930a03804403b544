"""Websocket sessions over the stream: frames in order, none lost, slow sides held up."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import msgspec

from gen_worker.authoring.context import ActionContext
from gen_worker.authoring.realtime import RealtimeSocket
from gen_worker.authoring.signature import FunctionSpec
from gen_worker.content.listing import Listing
from gen_worker.errors import CanceledError, FatalError, WorkerError
from gen_worker.events import RunEvent
from gen_worker.execution.admission import Admission
from gen_worker.execution.cancellation import CancelToken
from gen_worker.execution.executor import Executor
from gen_worker.execution.mailbox import Mailbox
from gen_worker.execution.run_outbox import checked_event
from gen_worker.log import Log
from gen_worker.names import RUN_ID_RULE, is_run_id
from gen_worker.outcome import outcome_of
from gen_worker.refs import canonical_ref
from gen_worker.residency.manager import Seat
from gen_worker.residency.place import form_name
from gen_worker.runtime.duties import Duties
from gen_worker.runtime.wire_runs import MAX_ECHOED_ID_BYTES, FilesOf, Voice, WireSink
from gen_worker.wire.messages import CloseRealtime, OpenRealtime, RealtimeCredit, RealtimeFrame

INBOUND_FRAMES = 256  # credit of the scheduler; a scheduler without credit may be so far ahead, times four
INBOUND_BYTES = 16 << 20
GRANT_FRAMES = 64
OUTBOUND_FRAMES = 64
OUTBOUND_BYTES = 1 << 20
CLOSE_GRACE_S = 5.0  # a handler whose session is over gets so long before it is cancelled
_encode_json = msgspec.json.Encoder(order="sorted").encode


class WireSocket(RealtimeSocket):
    """The handler's end. Lives on the tenant loop; `frames_in` and `end_of_frames` are called from the worker's loop."""

    def __init__(self, session_id: str, voice: Voice, to_worker: Mailbox, to_tenant: Mailbox, *, has_credit: bool) -> None:
        self.closed_by_handler = False
        self.overflowed = False
        self._session_id = session_id
        self._voice = voice
        self._to_worker = to_worker
        self._to_tenant = to_tenant
        self._has_credit = has_credit
        self._inbound: deque[bytes] = deque()
        self._waiting = 0  # frames handed over but not yet read, counted on the worker's loop
        self._waiting_bytes = 0
        self._ended = False
        self._news = asyncio.Event()
        self._in_flight = 0
        self._in_flight_bytes = 0
        self._room = asyncio.Event()
        self._consumed = 0

    async def send_bytes(self, data: bytes) -> None:
        await self._send(bytes(data), is_text=False)

    async def send_json(self, obj: Any) -> None:
        await self._send(_encode_json(obj), is_text=True)

    async def iter_bytes(self) -> AsyncIterator[bytes]:
        while True:
            while self._inbound:
                data = self._inbound.popleft()
                self._to_worker.post(self._read, len(data))
                yield data
            if self._ended or self.closed_by_handler:
                return
            self._news.clear()
            await self._news.wait()

    async def close(self) -> None:
        self.closed_by_handler = True
        self._news.set()
        self._room.set()

    def grant(self) -> None:
        """On the worker's loop: tell the scheduler how many frames are taken."""
        if self._has_credit:
            self._voice.say(RealtimeCredit(self._session_id, INBOUND_FRAMES))

    def frame_in(self, data: bytes) -> bool:
        """On the worker's loop: a frame for the handler; False when too many wait already."""
        limit = INBOUND_FRAMES if self._has_credit else 4 * INBOUND_FRAMES
        if self._waiting >= limit or (self._waiting and self._waiting_bytes + len(data) > INBOUND_BYTES):
            return False
        self._waiting += 1
        self._waiting_bytes += len(data)
        self._to_tenant.post(self._arrived, data)
        return True

    def end_of_frames(self) -> None:
        """From any thread: no more frames come, and none are sent."""
        self._to_tenant.post(self._end)

    def _read(self, size_bytes: int) -> None:
        self._waiting -= 1
        self._waiting_bytes -= size_bytes
        self._consumed += 1
        if self._has_credit and self._consumed >= GRANT_FRAMES:
            self._voice.say(RealtimeCredit(self._session_id, self._consumed))
            self._consumed = 0

    def _arrived(self, data: bytes) -> None:
        self._inbound.append(data)
        self._news.set()

    def _end(self) -> None:
        self._ended = True
        self._news.set()
        self._room.set()

    async def _send(self, data: bytes, *, is_text: bool) -> None:
        while not self._over and self._in_flight and self._is_full(len(data)):
            self._room.clear()
            await self._room.wait()
        if self._over:
            return
        self._in_flight += 1
        self._in_flight_bytes += len(data)
        self._to_worker.post(self._deliver, RealtimeFrame(self._session_id, data, is_text))

    def _deliver(self, frame: RealtimeFrame) -> None:
        self._voice.say(frame)
        self._voice.outbox.on_room(lambda: self._to_tenant.post(self._taken, len(frame.data)))

    def _taken(self, size_bytes: int) -> None:
        self._in_flight -= 1
        self._in_flight_bytes -= size_bytes
        self._room.set()

    @property
    def _over(self) -> bool:
        return self._ended or self.closed_by_handler

    def _is_full(self, size_bytes: int) -> bool:
        return self._in_flight >= OUTBOUND_FRAMES or self._in_flight_bytes + size_bytes > OUTBOUND_BYTES


class _Session(msgspec.Struct, eq=False):
    socket: WireSocket
    token: CancelToken
    ctx: ActionContext | None = None
    seat: Seat | None = None
    reason: str = ""  # why it ends, where the worker or the scheduler ended it


class RealtimeSessions:
    """The open sessions of a worker. They end with the stream that they came on: frames may have been lost with it."""

    def __init__(
        self,
        functions: Mapping[str, FunctionSpec],
        executor: Executor,
        admission: Admission,
        voice: Voice,
        duties: Duties,
        files_of: FilesOf,
        log: Log,
        *,
        max_frame_bytes: int,
        listings: Callable[[], Mapping[str, Listing]],
    ) -> None:
        self._functions = functions
        self._executor = executor
        self._admission = admission
        self._voice = voice
        self._duties = duties
        self._files_of = files_of
        self._log = log
        self._max_frame_bytes = max_frame_bytes
        self._listings = listings
        self._sessions: dict[str, _Session] = {}
        self._idle = asyncio.Event()
        self._idle.set()

    def open(self, command: OpenRealtime, *, has_credit: bool) -> None:
        """Start a handler, or answer with the reason why not."""
        if command.session_id in self._sessions:
            self._log.warning("realtime.duplicate", session_id=command.session_id)
            return
        if not is_run_id(command.session_id):  # the run id of the handler's context
            self._log.warning("realtime.refused", session_id=repr(command.session_id[:100]), error=RUN_ID_RULE)
            if len(command.session_id) <= MAX_ECHOED_ID_BYTES:
                self._voice.say(CloseRealtime(command.session_id, "invalid_session_id"))
            return
        spec = self._functions.get(command.function)
        if spec is None:
            self._voice.say(CloseRealtime(command.session_id, "unknown_function"))
            return
        refusal = self._admission.take(spec.name, spec.resources.max_concurrency)
        if refusal is not None:
            self._voice.say(CloseRealtime(command.session_id, refusal))
            return
        executor = self._executor
        to_tenant = Mailbox(executor.tenant.loop)
        socket = WireSocket(command.session_id, self._voice, executor.mailbox, to_tenant, has_credit=has_credit)
        session = self._sessions[command.session_id] = _Session(socket, CancelToken())
        self._idle.clear()
        socket.grant()
        self._duties.start(
            self._run(spec, command, session),
            f"realtime {command.session_id}",
            lambda error: self.refuse(command.session_id, error),
        )

    def refuse(self, session_id: str, error: Exception) -> None:
        """Answer for a session that could not be begun, or whose end went wrong on our side."""
        self._voice.say(CloseRealtime(session_id, f"error:{type(error).__name__}"))

    def frame(self, frame: RealtimeFrame) -> None:
        """A frame from the client."""
        session = self._sessions.get(frame.session_id)
        if session is None or session.reason:
            return
        if 0 < self._max_frame_bytes < len(frame.data):
            self._end(session, "frame_too_large")
        elif not session.socket.frame_in(frame.data):
            self._end(session, "slow_consumer")

    def close(self, session_id: str) -> None:
        """The client has left: the handler reads what has arrived, then its iteration ends."""
        session = self._sessions.get(session_id)
        if session is not None and not session.reason:
            session.reason = "completed"
            session.socket.end_of_frames()
            if session.ctx is not None:
                session.ctx.cancel()
            asyncio.get_running_loop().call_later(CLOSE_GRACE_S, session.token.cancel)

    def end_all(self, reason: str) -> None:
        """End every session, as when its stream is lost or the worker drains."""
        for session in list(self._sessions.values()):
            if not session.reason:
                self._end(session, reason)

    async def wait_idle(self) -> None:
        """Wait until no session is open."""
        await self._idle.wait()

    def _end(self, session: _Session, reason: str) -> None:
        session.reason = reason
        session.socket.end_of_frames()
        session.token.cancel()

    async def _run(self, spec: FunctionSpec, command: OpenRealtime, session: _Session) -> None:
        releases: list[Callable[[], None]] = []
        try:
            reason = await self._serve(spec, command, session, releases)
        except WorkerError as exc:
            self._log.warning("realtime.failed", session_id=command.session_id, function=spec.name, error=outcome_of(exc).error_message)
            reason = f"error:{type(exc).__name__}"
        finally:
            session.token.close()
            for release in releases:
                release()
            del self._sessions[command.session_id]
            if not self._sessions:
                self._idle.set()
            self._admission.give(spec.name)
        self._voice.say(CloseRealtime(command.session_id, reason))

    async def _serve(self, spec: FunctionSpec, command: OpenRealtime, session: _Session, releases: list[Callable[[], None]]) -> str:
        sink = WireSink(command.session_id, self._voice)
        if command.timeout_ms or spec.timeout_ms:
            session.token.expire_after(command.timeout_ms or spec.timeout_ms)
        arguments = await self._models(spec, command, session, sink, releases)
        outputs, _ = self._files_of(command.file_base_url, command.file_token, command.owner)

        def emitter(event: dict[str, Any]) -> None:
            payload = msgspec.Raw(checked_event(msgspec.json.encode(event["payload"])))
            self._executor.mailbox.post(sink.emit, RunEvent(event["type"], payload))

        ctx = session.ctx = ActionContext(
            command.session_id,
            emitter,
            command.owner or None,
            command.invoker_id or None,
            command.timeout_ms or spec.timeout_ms or None,
            required_models=command.required_models,
            outputs=outputs,
            device=(session.seat.device_name if session.seat else None) or self._executor.device,
        )
        error = await _on_tenant_loop(self._executor, session.token, ctx, lambda: spec.function(ctx, session.socket, **arguments))
        session.socket.end_of_frames()
        if session.reason and session.reason != "completed":
            return session.reason
        if error is not None and not (session.reason and isinstance(error, (CanceledError, asyncio.CancelledError))):
            shown = outcome_of(error).error_message
            self._log.warning("realtime.handler_failed", session_id=command.session_id, function=spec.name, error=shown)
            return f"error:{type(error).__name__}"
        return "closed" if session.socket.closed_by_handler else "completed"

    async def _models(
        self, spec: FunctionSpec, command: OpenRealtime, session: _Session, sink: WireSink, releases: list[Callable[[], None]]
    ) -> dict[str, Any]:
        """Injected parameters take the scheduler's refs by position."""
        if len(command.required_models) < len(spec.injections):
            missing = spec.injections[len(command.required_models)].param
            raise FatalError(f"the session names {len(command.required_models)} models, so that '{missing}' has none")
        arguments: dict[str, Any] = {}
        models = self._executor.models
        if spec.injections:
            named = zip(spec.injections, command.required_models, strict=False)
            session.seat = models.seat_for(spec.name, [form_name(canonical_ref(ref), injection.type) for injection, ref in named])
            releases.append(session.seat.release)
        for injection, ref in zip(spec.injections, command.required_models, strict=False):
            lease, _ = await session.token.race(models.acquire_ref(spec, injection, ref, sink.emit, self._listings(), session.seat))
            releases.append(lease.release)
            arguments[injection.param] = lease.view()
        if session.seat is not None:
            releases.append(session.seat.begin_work())
        return arguments


async def _on_tenant_loop(executor: Executor, token: CancelToken, ctx: ActionContext, start: Callable[[], Any]) -> BaseException | None:
    """Run a handler in the tenant's loop until it ends; what it raised."""
    tenant, mailbox = executor.tenant.loop, executor.mailbox
    ended: asyncio.Future[BaseException | None] = mailbox.loop.create_future()
    task: asyncio.Task[BaseException | None] | None = None

    async def handler() -> BaseException | None:
        try:
            await start()
        except asyncio.CancelledError:
            return token.reason or CanceledError("canceled")
        except BaseException as exc:  # noqa: BLE001 - the edge to the author's code
            return exc
        return None

    def begin() -> None:
        nonlocal task
        task = tenant.create_task(handler(), name=f"realtime {ctx.run_id}")
        task.add_done_callback(lambda done: mailbox.post(settle, CanceledError("canceled") if done.cancelled() else done.result()))

    def settle(error: BaseException | None) -> None:
        if not ended.done():
            ended.set_result(error)

    def stop(reason: WorkerError) -> None:
        ctx.cancel()
        tenant.call_soon_threadsafe(lambda: task.cancel() if task is not None else None)

    tenant.call_soon_threadsafe(begin)
    token.on_cancel(stop)
    return await ended
