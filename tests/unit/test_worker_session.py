"""The worker's side of a stream: which kind the scheduler is, what is sent to it, and what its messages request."""

import msgspec
import pytest

from gen_worker.transport.stream import Lost, Moved, Refused, TooLarge, ended_by_status, not_leader
from gen_worker.wire import messages as m
from gen_worker.wire.outbox import Outbox
from gen_worker.wire.worker_session import _NEXT, Ignored, Peer, RotateToken, Said, WorkerSession

HELLO = m.Hello(m.EXTENSIONS, 0)
BARE = m.Hello((), 0)
OTHER = m.InterruptRun("r")
BY_SAID: dict[Said, m.Message | None] = {Said.HELLO: HELLO, Said.BARE_HELLO: BARE, Said.OTHER: OTHER, Said.NOTHING: None}


def session_in(peer: Peer, outbox: Outbox | None = None) -> WorkerSession:
    session = WorkerSession(Outbox() if outbox is None else outbox)
    if peer is Peer.EXTENDED:
        session.receive(HELLO, 0)
    if peer is Peer.PLAIN:
        session.assume_plain(0)
    assert session.peer is peer
    return session


def test_the_table_is_complete() -> None:
    assert set(_NEXT) == {(peer, said) for peer in Peer for said in Said}


@pytest.mark.parametrize(
    ("peer", "said", "then"),
    [
        (Peer.UNKNOWN, Said.HELLO, Peer.EXTENDED),
        (Peer.UNKNOWN, Said.BARE_HELLO, Peer.UNKNOWN),
        (Peer.UNKNOWN, Said.OTHER, Peer.PLAIN),
        (Peer.UNKNOWN, Said.NOTHING, Peer.PLAIN),
        (Peer.PLAIN, Said.HELLO, Peer.EXTENDED),
        *[(Peer.PLAIN, said, Peer.PLAIN) for said in Said if said is not Said.HELLO],
        *[(Peer.EXTENDED, said, Peer.EXTENDED) for said in Said],
    ],
)
def test_who_the_scheduler_is_shows_in_what_it_says_first(peer: Peer, said: Said, then: Peer) -> None:
    session = session_in(peer)
    message = BY_SAID[said]
    effects = session.receive(message, 1) if message is not None else session.assume_plain(1) or []
    assert session.peer is then
    if said is Said.OTHER:
        assert effects == [OTHER]
    elif said is Said.BARE_HELLO or (said is Said.HELLO and peer is Peer.EXTENDED):
        assert [type(effect) for effect in effects] == [Ignored]
    else:
        assert effects == []


def test_nothing_is_sent_to_a_scheduler_that_is_not_known() -> None:
    outbox = Outbox()
    outbox.put(m.RunResult("r", True))
    session = session_in(Peer.UNKNOWN, outbox)
    assert session.outgoing(1 << 20) is None
    assert len(outbox) == 1


def test_a_plain_scheduler_gets_message_by_message_and_an_extended_one_numbered_batches() -> None:
    for peer in (Peer.PLAIN, Peer.EXTENDED):
        outbox = Outbox()
        session = session_in(peer, outbox)
        results = [m.RunResult(str(number), True) for number in range(3)]
        for result in results:
            outbox.put(result)
        sent = []
        while (out := session.outgoing(1 << 20)) is not None:
            sent.append(out[0])
            session.sent(out[1], 0)
        assert sent == (results if peer is Peer.PLAIN else [m.Batch(tuple(results), 1)])
        assert outbox.unconfirmed_results == (frozenset() if peer is Peer.PLAIN else frozenset("012"))


def test_a_hello_that_comes_late_counts_and_nothing_is_sent_twice() -> None:
    """As from a scheduler on a busy machine: its hello crosses the first messages, which were sent one by one."""
    outbox = Outbox()
    for number in range(2):
        outbox.put(m.RunResult(str(number), True))
    assert outbox.take(1 << 20) is not None  # both were on an earlier stream, of which the scheduler has read the first
    outbox.put(m.RunResult("2", True))
    session = session_in(Peer.PLAIN, outbox)
    first = session.outgoing(1 << 20)
    assert first is not None
    assert first[0] == m.RunResult("0", True)
    assert session.receive(m.Hello((*m.EXTENSIONS, m.FEW_EVENTS), 1), 0) == []
    session.sent(first[1], 0)  # was being written while the hello came
    assert (session.peer, session.wants_few_events) == (Peer.EXTENDED, True)
    then = session.outgoing(1 << 20)
    assert then is not None
    assert then[0] == m.Batch((m.RunResult("1", True), m.RunResult("2", True)), 2)
    session.sent(then[1], 0)
    assert outbox.unconfirmed_results == {"1", "2"}
    session.receive(m.Ack(3), 0)
    assert not outbox.unconfirmed_results


def test_what_a_late_hello_says_was_there_already_is_not_sent() -> None:
    outbox = Outbox()
    for number in range(3):
        outbox.put(m.RunResult(str(number), True))
    assert outbox.take(1 << 20) is not None
    session = session_in(Peer.PLAIN, outbox)
    session.receive(m.Hello(m.EXTENSIONS, 2), 0)
    out = session.outgoing(1 << 20)
    assert out is not None
    assert out[0] == m.Batch((m.RunResult("2", True),), 3)


def test_confirmations_come_alone_and_with_batches() -> None:
    outbox = Outbox()
    session = session_in(Peer.EXTENDED, outbox)
    for number in range(3):
        outbox.put(m.RunResult(str(number), True))
    session.outgoing(1 << 20)
    assert session.receive(m.Ack(1), 0) == []
    assert outbox.unconfirmed_results == frozenset("12")
    assert session.receive(m.Batch((OTHER, m.Unknown()), 0, 3), 0) == [OTHER, Ignored("Unknown")]
    assert not outbox.unconfirmed_results


def test_a_hello_says_what_had_arrived_before() -> None:
    outbox = Outbox()
    first = session_in(Peer.EXTENDED, outbox)
    for number in range(3):
        outbox.put(m.RunResult(str(number), True))
    first.outgoing(1 << 20)
    second = WorkerSession(outbox)
    second.receive(m.Hello(m.EXTENSIONS, 2), 0)
    out = second.outgoing(1 << 20)
    assert out is not None
    assert out[0] == m.Batch((m.RunResult("2", True),), 3)


@pytest.mark.parametrize(("extensions", "has_credit"), [(m.EXTENSIONS, True), ((m.BATCH,), False), ((m.BATCH, "unheard of"), False)])
def test_only_what_both_know_is_used(extensions: tuple[str, ...], has_credit: bool) -> None:
    session = WorkerSession(Outbox())
    session.receive(m.Hello(extensions, 0), 0)
    assert session.extensions <= set(m.EXTENSIONS)
    assert session.has_credit is has_credit


COMMANDS = [
    m.RunCommand("r", "f"),
    m.InterruptRun("r"),
    m.LoadModel("a"),
    m.UnloadModel("a"),
    m.ReleaseConfig(),
    m.OpenRealtime("s", "f"),
    m.RealtimeFrame("s"),
    m.RealtimeCredit("s", 1),
    m.CloseRealtime("s"),
    m.UrlRefreshResponse("a"),
]
NOT_FOR_A_WORKER = {
    "Registration": m.Registration(),
    "RunResult": m.RunResult("r"),
    "LoadModelResult": m.LoadModelResult("a"),
    "UnloadModelResult": m.UnloadModelResult("a"),
    "UrlRefreshRequest": m.UrlRefreshRequest("a"),
    "Unknown": m.Unknown(),
    "event 'anything'": m.Event("", "anything", b"{}"),
    "a realtime session without id or function": m.OpenRealtime("s", ""),
}


@pytest.mark.parametrize("peer", [Peer.PLAIN, Peer.EXTENDED])
def test_commands_are_handed_on_and_the_rest_is_ignored(peer: Peer) -> None:
    for command in COMMANDS:
        assert session_in(peer).receive(command, 0) == [command]
    for text, message in NOT_FOR_A_WORKER.items():
        assert session_in(peer).receive(message, 0) == [Ignored(text)]
    assert session_in(peer).receive(m.OpenRealtime("", "f"), 0) == [Ignored("a realtime session without id or function")]


@pytest.mark.parametrize("event_type", ["worker.jwt.rotate", "worker_jwt.rotate"])
@pytest.mark.parametrize(
    ("payload", "token"),
    [
        (b'{"worker_jwt": "a.b.c"}', "a.b.c"),
        (b'{"token": "a.b.c"}', "a.b.c"),
        (b'{"worker_jwt": "one", "token": "two"}', "one"),
        (b'{"worker_jwt": " "}', None),
        (b"{}", None),
        (b'{"worker_jwt": 5}', None),
        (b"[]", None),
        (b"\xff", None),
        (b'"\xff"', None),
        (b"", None),
    ],
)
def test_a_token_is_rotated_by_an_event(event_type: str, payload: bytes, token: str | None) -> None:
    (effect,) = session_in(Peer.PLAIN).receive(m.Event("", event_type, payload), 0)
    if token:
        assert effect == RotateToken(token)
    else:
        assert isinstance(effect, Ignored)
        assert effect.what in ("a token rotation that cannot be read", "a token rotation without a token")
        assert ("without" in effect.what) == (payload in (b'{"worker_jwt": " "}', b"{}"))


def test_every_message_of_the_protocol_is_taken_in_every_state() -> None:
    for kind in vars(m).values():
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct) and kind.__struct_defaults__ is not None:
            for peer in Peer:
                session_in(peer).receive(kind(), 0)


@pytest.mark.parametrize(
    ("code", "details", "ended"),
    [
        ("OK", "", Lost("OK", by_peer=True, clean=True)),
        ("UNAVAILABLE", "x", Lost("UNAVAILABLE: x", by_peer=True)),
        (*not_leader("host:1"), Moved("host:1")),
        (*not_leader(""), Lost("FAILED_PRECONDITION: not_leader:", by_peer=True)),
        (
            "FAILED_PRECONDITION",
            "unsupported_worker_protocol:2.0 supported=1:0-9999",
            Refused("unsupported_worker_protocol:2.0 supported=1:0-9999"),
        ),
        ("RESOURCE_EXHAUSTED", "Received message larger than max (6000042 vs. 4194304)", 4194304),
        ("RESOURCE_EXHAUSTED", "SERVER: Received message larger than max (6 vs. 4)", 4),
        ("RESOURCE_EXHAUSTED", "grpc: received message larger than max (6 vs. 4)", 4),
        ("RESOURCE_EXHAUSTED", "gRPC message exceeds maximum size 4194304: 6000042", 4194304),
        ("OUT_OF_RANGE", "Error, decoded message length too large: found 6 bytes, the limit is: 4 bytes", 4),
        ("RESOURCE_EXHAUSTED", "Received message exceeds the maximum configured message size.", 0),
        ("RESOURCE_EXHAUSTED", "larger than max (1 vs. " + "9" * 400 + ")", 0),
        ("OUT_OF_RANGE", "x", Lost("OUT_OF_RANGE: x", by_peer=True)),
    ],
)
def test_what_the_end_of_a_stream_means(code: str, details: str, ended: object) -> None:
    found = ended_by_status(code, details, by_peer=True)
    assert found == (TooLarge(f"{code}: {details}", ended) if isinstance(ended, int) else ended)


@pytest.mark.parametrize(("extensions", "few"), [(m.WORKER_EXTENSIONS, True), (m.EXTENSIONS, False), ((m.BATCH,), False)])
def test_a_scheduler_says_whether_it_wants_the_steps_of_every_run(extensions: tuple[str, ...], few: bool) -> None:
    session = WorkerSession(Outbox())
    session.receive(m.Hello(extensions, 0), 0)
    assert session.wants_few_events is few


def test_a_session_expects_that_its_last_stream_was_lost_by_a_fault() -> None:
    """Then a result that was written just before is sent again; a peer that ended the stream has read it."""
    for session, again in (({}, 1), ({"lost_by_peer": False}, 1), ({"lost_by_peer": True}, 0)):
        outbox = Outbox()
        outbox.put(m.RunResult("1", True))
        taken = outbox.take(1 << 20, 1)
        assert taken is not None
        outbox.wrote(taken, 1000.0)
        WorkerSession(outbox, **session).assume_plain(1001.0)
        assert len(outbox) == again


def test_what_is_ignored_is_named_within_bounds() -> None:
    (effect,) = session_in(Peer.PLAIN).receive(m.Event("", "x" * 101, b""), 0)
    assert effect == Ignored(f"event {'x' * 100!r}")


def test_a_bare_hello_is_named() -> None:
    assert session_in(Peer.UNKNOWN).receive(BARE, 0) == [Ignored("a hello without extensions")]
