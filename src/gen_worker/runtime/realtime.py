"""A scheduler's realtime sessions: opens or refuses them, moves their frames from and to the stream, and gives credit
for frames that were read.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial

from gen_worker.authoring.signature import FunctionSpec
from gen_worker.content.listing import Listing
from gen_worker.execution.admission import Admission
from gen_worker.execution.executor import Executor
from gen_worker.execution.handler_socket import INBOUND_FRAMES
from gen_worker.execution.realtime import Session
from gen_worker.execution.request import RunRequest
from gen_worker.log import Log
from gen_worker.names import RUN_ID_RULE, is_run_id
from gen_worker.outcome import Outcome
from gen_worker.runtime.voice import Voice
from gen_worker.runtime.wire_runs import MAX_ECHOED_ID_BYTES, FilesOf, WireSink
from gen_worker.wire.messages import CloseRealtime, OpenRealtime, RealtimeCredit, RealtimeFrame
from gen_worker.wire.realtime import GRANT_BYTES, GRANT_FRAMES

AHEAD_FRAMES = 4 * INBOUND_FRAMES  # how far a scheduler may be ahead that does not count credit
FRAME_OVERHEAD_BYTES = 512  # of a message around its frame, with a session id of up to 128 characters


class _WireClient:
    """Reports a session to the scheduler. It grants credit for frames that the handler has begun to work on. With
    `has_window`, the scheduler grants credit for frames on their way to a client that reads; without it, a frame counts
    as taken once the outbox has room.
    """

    def __init__(
        self,
        session_id: str,
        voice: Voice,
        *,
        has_credit: bool,
        has_window: bool,
        ended: Callable[[str, str, Outcome], None],
        released: Callable[[], None],
    ) -> None:
        self.released = released
        self.emit = WireSink(session_id, voice).emit
        self._session_id = session_id
        self._voice = voice
        self._has_credit = has_credit
        self._has_window = has_window
        self._ended = ended
        self._begun_frames = self._begun_bytes = 0
        self._untaken: deque[Callable[[], None]] = deque()  # for the frames that the scheduler has not credited, in order

    @property
    def largest_bytes(self) -> int:
        return self._voice.outbox.largest_bytes - FRAME_OVERHEAD_BYTES

    def grant(self, frames: int) -> None:
        """Allow the scheduler to send this many more frames."""
        if self._has_credit:
            self._voice.say(RealtimeCredit(self._session_id, frames))

    def send(self, data: bytes, *, is_text: bool, taken: Callable[[], None]) -> None:
        self._voice.say(RealtimeFrame(self._session_id, data, is_text))
        if self._has_window:
            self._untaken.append(taken)
        else:
            self._voice.outbox.on_room(taken)

    def credit(self, frames: int) -> None:
        """The scheduler has passed on this many more frames. Credit beyond the frames sent is ignored."""
        for _ in range(min(frames, len(self._untaken))):
            self._voice.outbox.on_room(self._untaken.popleft())

    def took(self, size_bytes: int) -> None:
        self._begun_frames += 1
        self._begun_bytes += size_bytes
        if self._begun_frames >= GRANT_FRAMES or self._begun_bytes >= GRANT_BYTES:
            self.grant(self._begun_frames)
            self._begun_frames = self._begun_bytes = 0

    def ended(self, reason: str, outcome: Outcome) -> None:
        try:
            self._voice.say(_close(self._session_id, reason, outcome))
        finally:
            self._ended(self._session_id, reason, outcome)


class RealtimeSessions:
    """The open sessions of a worker. They end with the stream they came on, because frames may have been lost with it."""

    def __init__(
        self,
        functions: Mapping[str, FunctionSpec],
        executor: Executor,
        admission: Admission,
        voice: Voice,
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
        self._files_of = files_of
        self._log = log
        self._max_frame_bytes = max_frame_bytes
        self._listings = listings
        self._sessions: dict[str, tuple[Session, _WireClient, int]] = {}  # each with the number of frames that may wait for its handler
        self._idle = asyncio.Event()
        self._idle.set()

    def open(self, command: OpenRealtime, *, has_credit: bool, has_window: bool) -> None:
        """Start a handler, or answer with the reason why not."""
        if command.session_id in self._sessions:
            self._log.warning("realtime.duplicate", session_id=command.session_id)
            return
        if not is_run_id(command.session_id):  # it becomes the run id of the handler's context
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
        try:
            self._begin(spec, command, has_credit, has_window)
        except Exception:
            self._forget(command.session_id)
            self._admission.give(spec.name)  # nothing was begun: the executor's start never raises
            raise

    def refuse(self, session_id: str, error: Exception) -> None:
        """Answer for a session that could not be started."""
        self._voice.say(CloseRealtime(session_id, f"error:{type(error).__name__}"))

    def frame(self, frame: RealtimeFrame) -> None:
        """A frame from the client."""
        found = self._sessions.get(frame.session_id)
        if found is not None:
            session, _, max_frames = found
            session.frame(frame.data, max_frames)

    def credit(self, session_id: str, frames: int) -> None:
        """The scheduler has passed on this many frames of this session."""
        found = self._sessions.get(session_id)
        if found is not None:
            found[1].credit(frames)

    def interrupt(self, session_id: str) -> None:
        """Cancel the handler now, as a run is cancelled; does nothing if there is no such session."""
        found = self._sessions.get(session_id)
        if found is not None:
            found[0].cancel()

    def close(self, session_id: str) -> None:
        """The client has left: the handler reads what has arrived, then its iteration ends."""
        found = self._sessions.get(session_id)
        if found is not None:
            found[0].leave()

    def end_all(self, reason: str) -> None:
        """End every session, as when its stream is lost or the worker drains."""
        for session, _, _ in list(self._sessions.values()):
            session.end(reason)

    async def wait_idle(self) -> None:
        """Wait until no session is open."""
        await self._idle.wait()

    def _begin(self, spec: FunctionSpec, command: OpenRealtime, has_credit: bool, has_window: bool) -> None:
        outputs, _ = self._files_of(command.file_base_url, command.file_token, command.owner)
        request = RunRequest(
            run_id=command.session_id,
            payload=b"",
            timeout_ms=command.timeout_ms,
            owner=command.owner or None,
            invoker_id=command.invoker_id or None,
            required_models=command.required_models,
            listings=self._listings(),
            injected=command.required_models,
        )
        client = _WireClient(
            command.session_id,
            self._voice,
            has_credit=has_credit,
            has_window=has_window,
            ended=partial(self._ended, spec.name),
            released=lambda: self._admission.give(spec.name),
        )
        session = Session(spec, client, self._executor, max_frame_bytes=self._max_frame_bytes)
        self._sessions[command.session_id] = session, client, INBOUND_FRAMES if has_credit else AHEAD_FRAMES
        self._idle.clear()
        client.grant(INBOUND_FRAMES)
        session.start(request, outputs)

    def _ended(self, function: str, session_id: str, reason: str, outcome: Outcome) -> None:
        if reason.startswith("error:"):
            facts = {"session_id": session_id, "function": function, "error": outcome.error_message}
            self._log.warning("realtime.handler_failed", **facts)
        self._forget(session_id)

    def _forget(self, session_id: str) -> None:
        self._sessions.pop(session_id, None)
        if not self._sessions:
            self._idle.set()


def _close(session_id: str, reason: str, outcome: Outcome) -> CloseRealtime:
    if outcome.success or reason in ("completed", "closed"):
        return CloseRealtime(session_id, reason)
    return CloseRealtime(session_id, reason, outcome.error_type, outcome.code, outcome.safe_message, outcome.error_message)
