"""The worker's side of one stream, without the stream."""

from enum import Enum

import msgspec

from gen_worker.wire.messages import (
    BATCH,
    EXTENSIONS,
    REALTIME_CREDIT,
    Ack,
    Batch,
    CloseRealtime,
    Event,
    Hello,
    InterruptRun,
    LoadModel,
    Message,
    OpenRealtime,
    RealtimeFrame,
    ReleaseConfig,
    RunCommand,
    Single,
    UnloadModel,
    UrlRefreshResponse,
)
from gen_worker.wire.outbox import Outbox, Taken

ROTATE_TYPES = ("worker.jwt.rotate", "worker_jwt.rotate")
_Command = (
    RunCommand | InterruptRun | LoadModel | UnloadModel | ReleaseConfig | OpenRealtime | RealtimeFrame | CloseRealtime | UrlRefreshResponse
)


class RotateToken(msgspec.Struct, frozen=True):
    """Use this token from the next connect on."""

    token: str


class Ignored(msgspec.Struct, frozen=True):
    """A message that asks for nothing here."""

    what: str


Effect = _Command | RotateToken | Ignored


class Peer(Enum):
    """What is known of the scheduler at the other end."""

    UNKNOWN = "unknown"  # nothing but the registration is sent
    PLAIN = "plain"  # speaks protocol 1.0, confirms nothing
    EXTENDED = "extended"  # said Hello: messages are numbered and confirmed


class WorkerSession:
    """Knows what may be sent on a stream, and what a received message asks for.

    A stream opens with the registration. The scheduler's first message says who it is: `Hello` means that it knows extensions. A
    scheduler that stays silent is taken for a plain one by `assume_plain`.
    """

    def __init__(self, outbox: Outbox, *, lost_by_peer: bool = False) -> None:
        self.peer = Peer.UNKNOWN
        self.extensions: frozenset[str] = frozenset()
        self._outbox = outbox
        self._lost_by_peer = lost_by_peer

    @property
    def has_credit(self) -> bool:
        """Whether frames of realtime sessions are counted."""
        return REALTIME_CREDIT in self.extensions

    def assume_plain(self, now_s: float) -> None:
        """The scheduler has not said Hello in time."""
        if self.peer is Peer.UNKNOWN:
            self.peer = Peer.PLAIN
            self._outbox.resume_plain(now_s, peer_ended=self._lost_by_peer)

    def receive(self, message: Message, now_s: float) -> list[Effect]:
        """Take one message and say what it asks for."""
        if isinstance(message, Hello):
            return self._greet(message)
        self.assume_plain(now_s)
        if isinstance(message, Batch):
            if message.ack_seq:
                self._outbox.confirm(message.ack_seq)
            return [effect for single in message.messages for effect in self._receive(single)]
        return self._receive(message)

    def outgoing(self, max_bytes: int) -> tuple[Message, Taken] | None:
        """The next message for the stream, and what of the outbox it carries; None when there is nothing to send now."""
        if self.peer is Peer.UNKNOWN:
            return None
        if self.peer is Peer.PLAIN:
            taken = self._outbox.take(max_bytes, 1)
            return None if taken is None else (taken.messages[0], taken)
        taken = self._outbox.take(max_bytes)
        return None if taken is None else (Batch(taken.messages, taken.first_seq), taken)

    def sent(self, taken: Taken, now_s: float) -> None:
        """The stream took what `outgoing` gave."""
        if self.peer is Peer.PLAIN:
            self._outbox.wrote(taken, now_s)

    def _greet(self, hello: Hello) -> list[Effect]:
        if self.peer is not Peer.UNKNOWN:
            return [Ignored("a second hello")]
        if BATCH not in hello.extensions:
            return [Ignored("a hello without extensions")]
        self.peer = Peer.EXTENDED
        self.extensions = frozenset(hello.extensions).intersection(EXTENSIONS)
        self._outbox.resume(hello.last_seq)
        return []

    def _receive(self, message: Single) -> list[Effect]:
        match message:
            case Ack(seq):
                self._outbox.confirm(seq)
                return []
            case Event(event_type=event_type, payload=payload) if event_type in ROTATE_TYPES:
                return _rotation(payload)
            case Event(event_type=event_type):
                return [Ignored(f"event {event_type[:100]!r}")]
            case OpenRealtime(session_id, function) if not session_id or not function:
                return [Ignored("a realtime session without id or function")]
            case (
                RunCommand()
                | InterruptRun()
                | LoadModel()
                | UnloadModel()
                | ReleaseConfig()
                | OpenRealtime()
                | RealtimeFrame()
                | CloseRealtime()
                | UrlRefreshResponse()
            ):
                return [message]
            case _:
                return [Ignored(type(message).__name__)]


def _rotation(payload: bytes) -> list[Effect]:
    try:
        found = msgspec.json.decode(payload, type=dict[str, msgspec.Raw])
        token = msgspec.json.decode(found.get("worker_jwt") or found.get("token") or b'""', type=str)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return [Ignored("a token rotation that cannot be read")]
    return [RotateToken(token)] if token.strip() else [Ignored("a token rotation without a token")]
