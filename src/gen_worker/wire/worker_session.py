"""The worker's side of one stream, without I/O.

A stream opens with the worker's registration. The scheduler's first message, or its silence, tells which kind it is:

                     a hello with `batch`     a hello without     anything else     250 ms of silence
    UNKNOWN          EXTENDED                 UNKNOWN             PLAIN             PLAIN
    PLAIN            EXTENDED                 PLAIN, ignored      PLAIN             PLAIN
    EXTENDED         EXTENDED, ignored        EXTENDED, ignored   EXTENDED          EXTENDED

Nothing of the outbox is sent while the peer is UNKNOWN. A PLAIN peer gets single messages and acknowledges nothing; an
EXTENDED peer gets numbered batches and acknowledges them. The effect of a message does not depend on the state:
commands are accepted in all of them.

PLAIN may be a mistake: on a busy machine either side can be later than 250 ms, and with single messages a run costs ten
times as much. So a hello counts whenever it arrives. Messages written before it are neither sent again nor
acknowledged.
"""

from collections.abc import Mapping
from enum import Enum

import msgspec

from gen_worker.wire.messages import (
    BATCH,
    FEW_EVENTS,
    REALTIME_CREDIT,
    REALTIME_WINDOW,
    WORKER_EXTENSIONS,
    Ack,
    Batch,
    CloseRealtime,
    Event,
    Hello,
    InterruptRun,
    LoadModel,
    Message,
    OpenRealtime,
    RealtimeCredit,
    RealtimeFrame,
    ReleaseConfig,
    RunCommand,
    Single,
    UnloadModel,
    UrlRefreshResponse,
)
from gen_worker.wire.outbox import MAX_MESSAGES, Outbox, Taken

ROTATE_TYPES = ("worker.jwt.rotate", "worker_jwt.rotate")
_Command = (
    RunCommand
    | InterruptRun
    | LoadModel
    | UnloadModel
    | ReleaseConfig
    | OpenRealtime
    | RealtimeFrame
    | RealtimeCredit
    | CloseRealtime
    | UrlRefreshResponse
)


class RotateToken(msgspec.Struct, frozen=True):
    """Use this token from the next connection on."""

    token: str


class Ignored(msgspec.Struct, frozen=True):
    """A message that needs no action."""

    what: str


WorkerEffect = _Command | RotateToken | Ignored


class Peer(Enum):
    """What is known about the scheduler's kind."""

    UNKNOWN = "unknown"  # only the registration has been sent
    PLAIN = "plain"  # speaks protocol 1.0 as far as we know, acknowledges nothing
    EXTENDED = "extended"  # said Hello: messages are numbered and acknowledged


class Said(Enum):
    """What the scheduler did that tells its kind."""

    HELLO = "a hello with the extension batch"
    BARE_HELLO = "a hello without extensions"
    OTHER = "any other message"
    NOTHING = "nothing for a while"


_NEXT: Mapping[tuple[Peer, Said], Peer] = {
    (Peer.UNKNOWN, Said.HELLO): Peer.EXTENDED,
    (Peer.UNKNOWN, Said.BARE_HELLO): Peer.UNKNOWN,
    (Peer.UNKNOWN, Said.OTHER): Peer.PLAIN,
    (Peer.UNKNOWN, Said.NOTHING): Peer.PLAIN,
    **{(peer, said): peer for peer in (Peer.PLAIN, Peer.EXTENDED) for said in Said},
    (Peer.PLAIN, Said.HELLO): Peer.EXTENDED,  # its hello came late
}


class WorkerSession:
    """Knows what may be sent on a stream, and what a received message asks for. The head of this module draws its states."""

    def __init__(self, outbox: Outbox, *, lost_by_peer: bool = False) -> None:
        self.peer = Peer.UNKNOWN
        self.extensions: frozenset[str] = frozenset()
        self.wants_few_events = False  # the scheduler does not need the events that every run has
        self._outbox = outbox
        self._lost_by_peer = lost_by_peer
        self._on_its_way: Taken | None = None  # being written to a plain peer

    @property
    def has_credit(self) -> bool:
        """Whether frames of realtime sessions need credits."""
        return REALTIME_CREDIT in self.extensions

    @property
    def has_window(self) -> bool:
        """Whether frames need credits in both directions, also by bytes."""
        return REALTIME_WINDOW in self.extensions

    def assume_plain(self, now_s: float) -> None:
        """The scheduler has not said Hello in time."""
        self._move(Said.NOTHING, now_s)

    def receive(self, message: Message, now_s: float) -> list[WorkerEffect]:
        """Handle one message and return what it asks for."""
        if isinstance(message, Hello):
            return self._greet(message, now_s)
        if self.peer is not Peer.EXTENDED:  # it stays EXTENDED; asking the table would take as long as the rest of this method
            self._move(Said.OTHER, now_s)
        if isinstance(message, Batch):
            if message.ack_seq:
                self._outbox.confirm(message.ack_seq)
            return [effect for single in message.messages for effect in self._receive(single)]
        return self._receive(message)

    def outgoing(self, max_bytes: int, max_messages: int = MAX_MESSAGES) -> tuple[Message, Taken] | None:
        """The next message to write, and the outbox entries that it carries; None when there is nothing to send now."""
        if self.peer is Peer.UNKNOWN:
            return None
        if self.peer is Peer.PLAIN:
            taken = self._on_its_way = self._outbox.take(max_bytes, 1)
            return None if taken is None else (taken.messages[0], taken)
        taken = self._outbox.take(max_bytes, max_messages)
        return None if taken is None else (Batch(taken.messages, taken.first_seq), taken)

    def sent(self, taken: Taken, now_s: float) -> None:
        """The stream took the message that `outgoing` returned."""
        if taken is self._on_its_way:  # a hello may have arrived since then
            self._on_its_way = None
            self._outbox.wrote(taken, now_s)

    def _greet(self, hello: Hello, now_s: float) -> list[WorkerEffect]:
        if BATCH not in hello.extensions:
            self._move(Said.BARE_HELLO, now_s)
            return [Ignored("a hello without extensions")]
        before = self.peer
        if not self._move(Said.HELLO, now_s):
            return [Ignored("a second hello")]
        self.extensions = frozenset(hello.extensions).intersection(WORKER_EXTENSIONS)
        self.wants_few_events = FEW_EVENTS in self.extensions
        if before is Peer.UNKNOWN:
            self._outbox.resume(hello.last_seq)
        else:
            self._outbox.skip(hello.last_seq)
        return []

    def _move(self, said: Said, now_s: float) -> bool:
        """Move to the next state; whether the state changed."""
        before, self.peer = self.peer, _NEXT[self.peer, said]
        if self.peer is Peer.PLAIN and before is not Peer.PLAIN:
            self._outbox.resume_plain(now_s, peer_ended=self._lost_by_peer)
        return self.peer is not before

    def _receive(self, message: Single) -> list[WorkerEffect]:
        match message:
            case RunCommand():  # first, because it is the most frequent one
                return [message]
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
                InterruptRun()
                | LoadModel()
                | UnloadModel()
                | ReleaseConfig()
                | OpenRealtime()
                | RealtimeFrame()
                | RealtimeCredit()
                | CloseRealtime()
                | UrlRefreshResponse()
            ):
                return [message]
            case _:
                return [Ignored(type(message).__name__)]


def _rotation(payload: bytes) -> list[WorkerEffect]:
    try:
        found = msgspec.json.decode(payload, type=dict[str, msgspec.Raw])
        token = msgspec.json.decode(found.get("worker_jwt") or found.get("token") or b'""', type=str)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return [Ignored("a token rotation that cannot be read")]
    return [RotateToken(token)] if token.strip() else [Ignored("a token rotation without a token")]
