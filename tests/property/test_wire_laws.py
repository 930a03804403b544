"""Laws of the protocol: encoding can be reversed; wherever a stream is cut, every run has one result, and every delta arrives once and
in order."""

import random
from typing import Any

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import given, settings

from gen_worker.pb import worker_scheduler_pb2 as pb
from gen_worker.wire import codec
from gen_worker.wire import messages as m
from gen_worker.wire.outbox import Outbox, Taken
from gen_worker.wire.scheduler_session import ProtocolViolationError, RunEnded, SchedulerSession, StaleResult, WorkerMemory
from gen_worker.wire.worker_session import Peer, RotateToken, WorkerSession

KINDS = [kind for kind in vars(m).values() if isinstance(kind, type) and issubclass(kind, msgspec.Struct) and kind in codec._ONEOF]
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


def values(kind: Any) -> st.SearchStrategy[Any]:
    """Any value of a message type, field by field."""
    fields = {}
    for field in msgspec.structs.fields(kind):
        fields[field.name] = _field(field.type)
    return st.builds(kind, **fields)


def _field(hint: Any) -> st.SearchStrategy[Any]:
    origin = getattr(hint, "__origin__", None)
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return values(hint)
    if hint is str:
        return texts
    if hint is bytes:
        return st.binary(max_size=40)
    if hint is bool:
        return st.booleans()
    if hint is int:
        return st.integers(-(2**31), 2**31 - 1)
    if origin is tuple:
        return st.lists(_field(hint.__args__[0]), max_size=3).map(tuple)
    assert origin is not None, hint
    return st.dictionaries(texts, _field(hint.__args__[1]), max_size=3)


@pytest.mark.parametrize("kind", KINDS)
def test_every_message_comes_back_as_it_was(kind: Any) -> None:
    @settings(max_examples=40)
    @given(values(kind))
    def law(message: Any) -> None:
        assert codec.decode(codec.encode(message)) == message

    law()


@given(st.lists(st.one_of([values(kind) for kind in KINDS]), max_size=5), st.integers(0, 2**62), st.integers(0, 2**62))
def test_a_batch_comes_back_as_it_was(messages: list[Any], first_seq: int, ack_seq: int) -> None:
    batch = m.Batch(tuple(messages), first_seq, ack_seq)
    assert codec.decode(codec.encode(batch)) == batch


@settings(max_examples=300)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_an_error(data: bytes) -> None:
    try:
        codec.decode(data)
    except codec.CodecError:
        pass


def test_unknown_messages_and_fields_are_skipped() -> None:
    future = b"\xfa\x3f\x03abc"  # field 1023, three bytes
    assert codec.decode(future) == m.Unknown()
    known = codec.encode(m.InterruptRun("r")) + future
    assert codec.decode(known) == m.InterruptRun("r")
    assert codec.decode(b"") == m.Unknown()


def test_a_published_worker_reads_ours_and_the_reverse() -> None:
    """A peer with the stubs of 1.0 sees its own fields, whatever ours are."""
    registration = m.Registration(
        m.Resources(cpu_cores=2, model_tiers=(m.ModelTier("a", "vram", 1),)), False, 1, 0, m.EXTENSIONS, "i", ("r",)
    )
    message = pb.WorkerSchedulerMessage.FromString(codec.encode(registration))
    assert message.worker_registration.resources.cpu_cores == 2
    message.worker_registration.ClearField("extensions")
    assert codec.decode(message.SerializeToString()) == m.Registration(registration.resources, False, 1, 0, (), "i", ("r",))


def test_text_that_is_not_unicode_is_replaced_and_numbers_that_do_not_fit_are_an_error() -> None:
    batch = m.Batch((m.RunResult("r", error_message="a\ud800b"), m.Event("r", "\udfff", b"{}")), 1)
    assert codec.decode(codec.encode(batch)) == m.Batch((m.RunResult("r", error_message="a?b"), m.Event("r", "?", b"{}")), 1)
    with pytest.raises(codec.CodecError, match="Ack cannot be sent"):
        codec.encode(m.Ack(2**63))


class Link:
    """A worker and a scheduler on a link that is cut anywhere. Either side may have had, or not have had, what was last sent."""

    outbox_kind: type[Outbox] = Outbox
    scheduler_kind: type[SchedulerSession] = SchedulerSession
    starts_duplicates = False

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.outbox = self.outbox_kind()
        self.memories: dict[str, WorkerMemory] = {}
        self.running: dict[str, int] = {}  # on the worker: run id to deltas said
        self.commands: dict[str, int] = {}  # how often a run was started on the worker
        self.results: dict[str, int] = {}
        self.deltas: dict[str, list[int]] = {}
        self.asked = 0
        self.zombies: list[tuple[SchedulerSession, list[bytes]]] = []
        self.to_scheduler: list[bytes] = []
        self.connect(first=True)

    def connect(self, *, first: bool = False) -> None:
        """Cut what is there; a new stream opens with the registration. The scheduler may be a while in reading the old one to its end."""
        if not first and self.scheduler.registration is not None and self.rng.random() < 0.5:
            self.zombies.append((self.scheduler, self.to_scheduler))
        active = tuple(sorted({*self.running, *self.outbox.unconfirmed_results}))
        self.worker = WorkerSession(self.outbox)
        self.scheduler = self.scheduler_kind(self.memories)
        self.to_scheduler = [codec.encode(m.Registration(m.Resources(), False, 1, 0, m.EXTENSIONS, "instance", active))]
        self.to_worker: list[bytes] = []

    def ask(self) -> None:
        if self.scheduler.registration is not None:
            self.asked += 1
            self.scheduler.start(m.RunCommand(f"run-{self.asked}", "f"))

    def scheduler_sends(self) -> None:
        message = self.scheduler.outgoing(1000)
        if message is not None:
            self.to_worker.append(codec.encode(message))

    def worker_sends(self) -> None:
        out = self.worker.outgoing(400)
        if out is not None:
            self.to_scheduler.append(codec.encode(out[0]))
            self.worker.sent(out[1], 0.0)

    def scheduler_receives(self) -> None:
        if self.to_scheduler:
            self.receive_in(self.scheduler, self.to_scheduler)

    def zombie_receives(self) -> None:
        self.zombies = [(session, queue) for session, queue in self.zombies if queue]
        if self.zombies:
            self.receive_in(*self.rng.choice(self.zombies))

    def receive_in(self, session: SchedulerSession, queue: list[bytes]) -> None:
        for effect in session.receive(codec.decode(queue.pop(0))):
            if isinstance(effect, RunEnded):
                run_id = effect.result.run_id
                self.results[run_id] = self.results.get(run_id, 0) + 1
                assert self.deltas.get(run_id, []) == list(range(int(effect.result.output))), "every delta, before the result"
            elif isinstance(effect, m.Event):
                self.deltas.setdefault(effect.run_id, []).append(int(effect.payload))
            assert not isinstance(effect, StaleResult), "no result comes twice"

    def worker_receives(self) -> None:
        if not self.to_worker:
            return
        for effect in self.worker.receive(codec.decode(self.to_worker.pop(0)), 0.0):
            if isinstance(effect, m.RunCommand):
                known = effect.run_id in self.running or self.outbox.holds_result_of(effect.run_id)
                if not known or self.starts_duplicates:
                    self.commands[effect.run_id] = self.commands.get(effect.run_id, 0) + 1
                    self.running[effect.run_id] = 0

    def say_delta(self) -> None:
        if self.running:
            run_id = self.rng.choice(sorted(self.running))
            self.outbox.put(m.Event(run_id, "output.delta", str(self.running[run_id]).encode()))
            self.running[run_id] += 1

    def end_run(self) -> None:
        if self.running:
            run_id = self.rng.choice(sorted(self.running))
            self.outbox.put(m.RunResult(run_id, True, str(self.running.pop(run_id)).encode()))

    def check(self) -> None:
        assert all(count == 1 for count in self.results.values()), "one result a run"
        assert all(count == 1 for count in self.commands.values()), "a run is started once"
        for seen in self.deltas.values():
            assert seen == list(range(len(seen))), "deltas once, in order, without a gap"

    def live(self, steps: int) -> None:
        """Random steps with cuts; then, once nothing is cut any more, everything that was asked for has its result."""
        moves = [self.scheduler_sends, self.worker_sends, self.scheduler_receives, self.worker_receives, self.zombie_receives]
        weighted = 8 * moves + 3 * [self.say_delta] + 2 * [self.ask] + [self.end_run] + [self.connect]
        for _ in range(steps):
            self.rng.choice(weighted)()
            self.check()
        self.connect()
        for _ in range(4 * self.asked + 60):
            while self.running:
                self.end_run()
            for move in moves:
                move()
            self.check()
        assert self.results == {f"run-{number}": 1 for number in range(1, self.asked + 1)}, "every run has its result"
        assert not self.outbox.unconfirmed_results


def test_every_run_has_one_result_however_often_the_stream_is_cut() -> None:
    _live_through(Link, 600)


class _NoResend(Outbox):
    def _return_taken(self) -> None:
        self._taken.clear()


class _NoDedupe(SchedulerSession):
    def _receive_batch(self, batch: m.Batch) -> list[tuple[int, Any]]:
        self.memory.last_seq = max(self.memory.last_seq, batch.first_seq + len(batch.messages) - 1)
        return [(batch.first_seq + n, self._receive(message)) for n, message in enumerate(batch.messages)]


class _AcksTooMuch(SchedulerSession):
    def outgoing(self, max_bytes: int) -> m.Message | None:
        message = super().outgoing(max_bytes)
        return m.Ack(message.seq + 3) if isinstance(message, m.Ack) else message


class _ForgetsCommands(SchedulerSession):
    def _send_again(self, registration: m.Registration) -> None:
        return


class _SendsAllAgain(SchedulerSession):
    def _send_again(self, registration: m.Registration) -> None:
        for command in self.memory.runs.values():
            self.send(command)


class _StartsTwice(Link):
    scheduler_kind = _SendsAllAgain
    starts_duplicates = True


def _live_through(link: type[Link], seeds: int) -> None:
    for seed in range(seeds):
        link(seed).live(200)


@pytest.mark.parametrize("bug", [_NoResend, _NoDedupe, _AcksTooMuch, _ForgetsCommands, _StartsTwice])
def test_the_law_finds_planted_bugs(bug: type[Any]) -> None:
    """A law that holds without its guards would prove nothing."""
    if issubclass(bug, Link):
        link: type[Link] = bug
    else:
        name = "outbox_kind" if issubclass(bug, Outbox) else "scheduler_kind"
        link = type("Planted", (Link,), {name: bug})
    with pytest.raises(AssertionError):
        _live_through(link, 100)


@given(st.lists(st.one_of([values(kind) for kind in KINDS]), max_size=20), st.booleans())
def test_a_worker_session_takes_messages_in_any_order(messages: list[Any], assumed: bool) -> None:
    session = WorkerSession(Outbox())
    assert session.outgoing(1000) is None
    if assumed:
        session.assume_plain(0.0)
    for message in messages:
        before = session.peer
        session.receive(message, 1.0)
        late = before is Peer.PLAIN and isinstance(message, m.Hello)
        assert before is Peer.UNKNOWN or late or session.peer is before, "what a peer is changes by a late hello only"


@given(st.lists(st.one_of([values(kind) for kind in KINDS]), max_size=20))
def test_a_scheduler_session_takes_a_registration_first(messages: list[Any]) -> None:
    session = SchedulerSession({})
    for message in messages:
        try:
            session.receive(message)
        except ProtocolViolationError:
            assert session.registration is None or isinstance(message, m.Registration)
            return


def test_rotation_of_tokens() -> None:
    session = WorkerSession(Outbox())
    for event_type, payload, expected in (
        ("worker.jwt.rotate", b'{"worker_jwt":"a"}', [RotateToken("a")]),
        ("worker_jwt.rotate", b'{"token":"b"}', [RotateToken("b")]),
    ):
        assert session.receive(m.Event("", event_type, payload), 0.0) == expected
    for payload in (b"", b"[]", b'{"worker_jwt":""}', b'{"worker_jwt":3}', b"\xff", b"{}"):
        (effect,) = session.receive(m.Event("", "worker.jwt.rotate", payload), 0.0)
        assert not isinstance(effect, RotateToken), payload


class TestPlainPeer:
    """A scheduler of protocol 1.0 confirms nothing: a result counts as lost only where its connection broke soon after."""

    def sent(self) -> tuple[Outbox, WorkerSession]:
        outbox = Outbox()
        outbox.put(m.RunResult("r", True, b"1"))
        session = WorkerSession(outbox)
        session.assume_plain(0.0)
        out = session.outgoing(1000)
        assert out is not None
        assert out[0] == m.RunResult("r", True, b"1")
        session.sent(out[1], 1.0)
        assert session.outgoing(1000) is None
        assert not outbox.holds_result_of("r")
        return outbox, session

    def again(self, outbox: Outbox, now_s: float, *, by_peer: bool) -> Taken | None:
        session = WorkerSession(outbox, lost_by_peer=by_peer)
        session.assume_plain(now_s)
        out = session.outgoing(1000)
        return None if out is None else out[1]

    def test_a_result_written_just_before_a_fault_is_sent_again(self) -> None:
        outbox, _ = self.sent()
        assert self.again(outbox, 5.0, by_peer=False) is not None

    def test_one_written_long_before_is_not(self) -> None:
        outbox, _ = self.sent()
        assert self.again(outbox, 60.0, by_peer=False) is None

    def test_nor_is_one_where_the_peer_ended_the_stream_in_order(self) -> None:
        outbox, _ = self.sent()
        assert self.again(outbox, 1.1, by_peer=True) is None

    def test_what_no_stream_took_is_always_sent_again(self) -> None:
        outbox = Outbox()
        outbox.put(m.RunResult("r", True, b"1"))
        session = WorkerSession(outbox)
        session.assume_plain(0.0)
        assert session.outgoing(1000) is not None  # the stream was cut before it took it
        assert self.again(outbox, 100.0, by_peer=True) is not None


def test_measured_numbers_that_do_not_fit_are_sent_as_the_nearest_that_do() -> None:
    resources = m.Resources(
        gpu_count=2**40, memory_bytes=10**30, function_concurrency={"f": 2**40}, model_tiers=(m.ModelTier("a", "vram", -(10**30)),)
    )
    sent = codec.decode(codec.encode(m.Registration(resources)))
    assert isinstance(sent, m.Registration)
    found = sent.resources
    assert (found.gpu_count, found.memory_bytes, found.function_concurrency) == (2**31 - 1, 2**63 - 1, {"f": 2**31 - 1})
    assert found.model_tiers[0].size_bytes == -(2**63)


def test_what_the_protocol_cannot_carry_is_replaced_and_the_others_keep_their_places() -> None:
    refused: list[m.Single] = []
    batch = m.Batch((m.Event("r", "a", b"{}"), m.Event("r", None, b"{}"), m.RunResult(5, output="x"), m.Ack(2**63), m.Event("r", "b")), 7)  # type: ignore[arg-type]
    sent = codec.decode(codec.encode_sendable(batch, lambda message, error: refused.append(message)))
    assert isinstance(sent, m.Batch)
    assert [type(message) for message in sent.messages] == [m.Event, m.Unknown, m.RunResult, m.Unknown, m.Event]
    assert sent.first_seq == 7
    assert len(refused) == 3
    assert codec.decode(codec.encode_sendable(m.Event("r", 5), lambda *_: None)) == m.Unknown()  # type: ignore[arg-type]
