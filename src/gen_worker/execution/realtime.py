"""One realtime session: a run whose function exchanges frames with its client until the function, the client or we end
it.

    open ------> models, call (as of any run: see `Run`) ------> ended ------> released
      |                                                            ^
      +-- the client leaves: the handler reads what has arrived,   |
      |   its iteration ends; after 5 s it is cancelled -----------+
      +-- we end it (`end`): it is cancelled now ------------------+

Reasons, the same on the wire and in the dev runner: `completed` (the handler returned, or its client had left),
`closed` (the handler closed), `error:<class of the exception>`, and the argument of `end`.
"""

import asyncio
from collections.abc import Callable
from typing import Protocol

import msgspec

from gen_worker import events
from gen_worker.authoring.context import OutputStore
from gen_worker.authoring.signature import FunctionSpec
from gen_worker.errors import CanceledError
from gen_worker.events import RunEvent
from gen_worker.execution.cancellation import CancelToken
from gen_worker.execution.executor import Executor
from gen_worker.execution.handler_socket import INBOUND_FRAMES, FrameSink, HandlerSocket
from gen_worker.execution.request import RunRequest
from gen_worker.outcome import Outcome

CLOSE_GRACE_S = 5.0  # a handler whose client has left is cancelled after this time
# Metrics about payload and output, which a session does not have.
_NOT_OF_SESSIONS = events.RESERVED | {events.METRICS_FETCH, events.METRICS_GPU_LOAD, events.METRICS_INFERENCE}


class SessionClient(FrameSink, Protocol):
    """Whoever opened a session, on the executor's loop."""

    def emit(self, event: RunEvent) -> None:
        """An event of the author's, a model's step, or a warning."""
        ...

    def ended(self, reason: str, outcome: Outcome) -> None:
        """The session is over. Called once; no frame comes after it."""
        ...

    def released(self) -> None:
        """The author's code has ended, and its slot is free. Called once, with `ended` or later."""
        ...


class Session:
    """Lives on the executor's loop. It is also its run's hooks (`RunHooks`)."""

    def __init__(
        self,
        spec: FunctionSpec,
        client: SessionClient,
        executor: Executor,
        *,
        max_frame_bytes: int = 0,
        token: CancelToken | None = None,
    ) -> None:
        self.reason = ""  # why it ends, if the client or we ended it
        self.outcome: Outcome | None = None
        self._spec = spec
        self._client = client
        self._executor = executor
        self._max_frame_bytes = max_frame_bytes
        self._socket = HandlerSocket(client, executor.mailbox)
        self._token = token or CancelToken()
        self._grace: asyncio.TimerHandle | None = None

    def start(self, request: RunRequest, outputs: OutputStore) -> None:
        """Call the handler once its models are loaded. Never raises for errors of the handler or its models: they go to `ended`."""
        self._executor.start(self._spec, msgspec.structs.replace(request, socket=self._socket), self, self._token, outputs)

    def offer(self, data: bytes, max_frames: int = INBOUND_FRAMES) -> bool:
        """A frame from the client; a frame that is too large ends the session. False while too many wait for the
        handler: offer it again after `took`. A session that is over accepts everything and drops it.
        """
        if self.reason or self.outcome is not None:
            return True
        if 0 < self._max_frame_bytes < len(data):
            self.end("frame_too_large")
            return True
        return self._socket.frame_in(data, max_frames)

    def frame(self, data: bytes, max_frames: int = INBOUND_FRAMES) -> None:
        """Like `offer`, for a client that cannot be paused: too many frames end the session."""
        if not self.offer(data, max_frames):
            self.end("slow_consumer")

    def leave(self) -> None:
        """The client has left."""
        if self.reason or self.outcome is not None:
            return
        self.reason = "completed"
        self._grace = asyncio.get_running_loop().call_later(CLOSE_GRACE_S, self._token.cancel)
        self._socket.leave()

    def end(self, reason: str) -> None:
        """End the session now, for a reason of ours."""
        if not self.reason and self.outcome is None:
            self.reason = reason
            self._socket.end()
            self._token.cancel(CanceledError(reason))

    def cancel(self) -> None:
        """Cancel the handler like a run: its session ends with `error:CanceledError`."""
        self._token.cancel()

    # Calls from the executor.

    @property
    def ready(self) -> bool:
        return True

    def on_ready(self, callback: Callable[[], None]) -> None:
        callback()

    def emit_all(self, batch: list[RunEvent]) -> None:
        for event in batch:
            if event.event_type not in _NOT_OF_SESSIONS:
                self._client.emit(event)

    def ended(self, outcome: Outcome) -> None:
        self.outcome = outcome
        self._socket.end()
        if self._grace is not None:
            self._grace.cancel()
        self._client.ended(self._why(outcome), outcome)

    def released(self) -> None:
        self._client.released()

    def _why(self, outcome: Outcome) -> str:
        if self.reason not in ("", "completed"):
            return self.reason
        if not outcome.success and not (self.reason and outcome.error_type == "canceled"):
            return f"error:{outcome.raised}"
        return "closed" if self._socket.closed_by_handler else "completed"
