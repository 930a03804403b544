"""What the scheduler's side accepts in a registration, and how it batches and confirms."""

from typing import Any

import pytest

from gen_worker.wire.messages import (
    BATCH,
    FEW_EVENTS,
    MAX_ACTIVE_RUNS,
    Ack,
    ActiveRun,
    Batch,
    CloseRealtime,
    Event,
    FunctionSchema,
    Hello,
    InterruptRun,
    LoadModelResult,
    ModelTier,
    RealtimeCredit,
    RealtimeFrame,
    Registration,
    Resources,
    RunCommand,
    RunResult,
    Unknown,
    UnloadModelResult,
    UrlRefreshRequest,
    size_of,
)
from gen_worker.wire.scheduler_session import (
    MAX_NAME_BYTES,
    MAX_NAMES,
    IncompatibleError,
    ProtocolViolationError,
    Registered,
    SchedulerSession,
    WorkerMemory,
)
from gen_worker.wire_protocol import WIRE_PROTOCOL_MAJOR

LONG = "n" * (MAX_NAME_BYTES + 1)
RIGHT = "n" * MAX_NAME_BYTES
NAMED: dict[str, Any] = {
    "available_functions": lambda name, count: {"resources": Resources(available_functions=(name,) * count)},
    "vram_models": lambda name, count: {"resources": Resources(vram_models=(name,) * count)},
    "disk_models": lambda name, count: {"resources": Resources(disk_models=(name,) * count)},
    "installed_libs": lambda name, count: {"resources": Resources(installed_libs=(name,) * count)},
    "model_tiers": lambda name, count: {"resources": Resources(model_tiers=(ModelTier(name, "vram"),) * count)},
    "function_schemas": lambda name, count: {"resources": Resources(function_schemas=(FunctionSchema(name),) * count)},
    "function_concurrency": lambda name, count: {"resources": Resources(function_concurrency={name + str(n): 1 for n in range(count)})},
    "active_run_ids": lambda name, count: {"active_run_ids": (name,) * count},
    "active_runs": lambda name, count: {"active_runs": (ActiveRun(name, 1),) * count},
    "extensions": lambda name, count: {"extensions": (name,) * count},
}


def register(session: SchedulerSession, **fields: Any) -> Any:
    return session.receive(Registration(protocol_major=WIRE_PROTOCOL_MAJOR, **fields))


@pytest.mark.parametrize("what", NAMED)
def test_names_are_counted_and_measured(what: str) -> None:
    make, most = NAMED[what], MAX_ACTIVE_RUNS if what.startswith("active_run") else MAX_NAMES
    register(SchedulerSession({}), **make("n", most))
    register(SchedulerSession({}), **make("n" * (MAX_NAME_BYTES - 1), 1))
    with pytest.raises(ProtocolViolationError) as raised:
        register(SchedulerSession({}), **make("n", most + 1))
    assert str(raised.value) == f"registration with {most + 1} {what}; at most {most} are taken"
    if what != "function_concurrency":
        register(SchedulerSession({}), **make(RIGHT, 1))
    longest = 1026 if what == "function_concurrency" else 1025
    with pytest.raises(ProtocolViolationError) as raised:
        register(SchedulerSession({}), **make(LONG, 1))
    assert str(raised.value) == f"registration with a name of {longest} characters in {what}; at most 1024 are taken"


def test_the_first_message_and_its_version() -> None:
    with pytest.raises(IncompatibleError) as raised:
        SchedulerSession({}).receive(Registration(protocol_major=7, protocol_minor=3))
    assert str(raised.value) == f"unsupported_worker_protocol:7.3 supported={WIRE_PROTOCOL_MAJOR}:0-9999"
    with pytest.raises(ProtocolViolationError) as first:
        SchedulerSession({}).receive(Event("r", "x", b""))
    assert str(first.value) == "a stream opens with a registration, not with Event"


def test_what_a_worker_that_knows_nothing_new_gets() -> None:
    memories: dict[str, WorkerMemory] = {}
    session = SchedulerSession(memories)
    (registered,) = register(session, instance_id="one")
    assert registered == Registered(session.registration, is_heartbeat=False)
    assert memories["one"] is session.memory
    assert session.memory.instance_id == "one"
    assert (session.owes, session.is_urgent, session.outgoing(1), session.extensions) == (False, False, None, ())
    first, second = RunCommand("1", "f"), RunCommand("2", "f")
    session.start(first)
    session.start(second)
    assert (session.owes, session.is_urgent) == (True, True)
    assert (session.outgoing(1 << 20), session.outgoing(1 << 20), session.outgoing(1 << 20)) == (first, second, None)
    (again,) = register(session)
    assert (again.is_heartbeat, session.owes) == (True, False)
    other = SchedulerSession({})
    register(other)
    assert (other.memory.instance_id, other._memories) == ("", {})


@pytest.mark.parametrize(("few", "known"), [(False, False), (True, True)])
def test_what_both_sides_know_is_said_in_the_hello(few: bool, known: bool) -> None:
    session = SchedulerSession({}, few_events=few)
    register(session, extensions=(BATCH, FEW_EVENTS, "other"))
    assert (FEW_EVENTS in session.extensions, "other" in session.extensions, BATCH in session.extensions) == (known, False, True)
    assert session.outgoing(1 << 20) == Hello(session.extensions, 0)
    plain = SchedulerSession({}, extensions=False, few_events=True)
    register(plain, extensions=(BATCH, FEW_EVENTS))
    assert (plain.extensions, plain.owes) == ((), False)
    without = SchedulerSession({}, few_events=True)
    register(without, extensions=(FEW_EVENTS,))
    assert (without.extensions, without.owes) == ((), False)


def test_messages_leave_in_batches_of_the_size_that_is_asked_for() -> None:
    session = SchedulerSession({})
    register(session, extensions=(BATCH,))
    commands = [RunCommand(str(number), "f", b"x" * 100) for number in range(4)]
    for command in commands:
        session.start(command)
    assert isinstance(session.outgoing(1), Hello)
    size = size_of(commands[0])
    assert session.outgoing(2 * size) == Batch(tuple(commands[:2]), 0, 0)
    assert session.outgoing(2 * size - 1) == commands[2], "one alone needs no batch"
    session.receive(Batch((Event("0", "x", b""),), 1))
    assert session.outgoing(0) == Batch((commands[3],), 0, 1), "at least one leaves, and takes the acknowledgement along"
    assert session.outgoing(0) is None


def test_what_came_is_confirmed_at_leisure_and_only_where_it_is_written() -> None:
    memories: dict[str, WorkerMemory] = {}
    session = SchedulerSession(memories)
    register(session, extensions=(BATCH,), instance_id="one")
    session.outgoing(1)
    session.receive(Batch((Event("r", "x", b""),) * 255, 1))
    assert (session.owes, session.is_urgent) == (True, False)
    session.receive(Batch((Event("r", "x", b""),), 256))
    assert session.is_urgent
    assert session.outgoing(1) == Ack(256)
    assert (session.owes, session.outgoing(1)) == (False, None)
    memories["one"].durable_seq = 256
    session.receive(Batch((Event("r", "x", b""),), 257))
    assert not session.owes, "it is not written yet"
    memories["one"].durable_seq = 257
    assert session.outgoing(1) == Ack(257)
    register(session, extensions=(BATCH,))
    assert session.outgoing(1) == Ack(257), "the way is open in both directions"
    later = SchedulerSession(memories)
    register(later, extensions=(BATCH,), instance_id="one")
    assert later.outgoing(1) == Hello(later.extensions, 257)


def test_a_message_counts_once_and_tells_its_number() -> None:
    session = SchedulerSession({})
    register(session, extensions=(BATCH,))
    one, two = Event("r", "one", b""), RealtimeFrame("s", b"two")
    assert session.receive_numbered(Batch((one, two), 1)) == [(1, one), (2, two)]
    assert session.receive_numbered(Batch((one, two, one), 1)) == [(3, one)]
    assert session.receive_numbered(Batch((one, two), 0)) == [(0, one), (0, two)]
    assert session.receive_numbered(one) == [(0, one)]
    assert session.memory.last_seq == 3


@pytest.mark.parametrize(
    "message",
    [
        Event("r", "x", b""),
        RealtimeFrame("s", b""),
        LoadModelResult("m", True),
        UnloadModelResult("m", True),
        UrlRefreshRequest("r"),
        CloseRealtime("s"),
        RealtimeCredit("s", 1),
    ],
)
def test_what_is_handed_on_as_it_is(message: Any) -> None:
    session = SchedulerSession({})
    register(session)
    assert session.receive(message) == [message]
    assert session.receive(InterruptRun("r")) == [Unknown()], "that is what a scheduler says"


def test_an_interrupt_is_for_a_run_that_the_worker_has() -> None:
    session = SchedulerSession({})
    register(session)
    session.interrupt("1")
    assert not session.owes
    session.start(RunCommand("1", "f"))
    session.interrupt("1")
    assert (session.outgoing(1), session.outgoing(1)) == (RunCommand("1", "f"), InterruptRun("1"))
    session.receive(RunResult("1", True))
    assert session.memory.interrupted == set()


def test_a_session_without_batches_confirms_nothing() -> None:
    session = SchedulerSession({})
    register(session)
    session.receive(Batch((Event("r", "x", b""),), 1))
    assert (session.owes, session.outgoing(1)) == (False, None)
