"""The scheduler's side of a stream: what it sends again to a worker that reconnects."""

import pytest

from gen_worker.wire.messages import (
    BATCH,
    MAX_ACTIVE_RUNS,
    MAX_RUNS,
    ActiveRun,
    Batch,
    Hello,
    InterruptRun,
    Message,
    Registration,
    RunCommand,
    RunResult,
    Single,
)
from gen_worker.wire.outbox import MAX_UNCONFIRMED
from gen_worker.wire.scheduler_session import ProtocolViolationError, RunEnded, SchedulerSession, StaleResult, WorkerMemory
from gen_worker.wire_protocol import WIRE_PROTOCOL_MAJOR


def stream(memories: dict[str, WorkerMemory], *active: str) -> SchedulerSession:
    """A stream of the worker that is called "one", which has these runs."""
    session = SchedulerSession(memories)
    session.receive(Registration(protocol_major=WIRE_PROTOCOL_MAJOR, extensions=(BATCH,), instance_id="one", active_run_ids=active))
    return session


def sent(session: SchedulerSession) -> list[Single]:
    found: list[Single] = []
    while session.owes:
        message: Message | None = session.outgoing(1 << 20)
        assert message is not None
        found += message.messages if isinstance(message, Batch) else [message]  # type: ignore[list-item]
    assert isinstance(found[0], Hello)
    return found[1:]


def test_a_run_without_a_result_is_sent_again_to_a_worker_that_does_not_have_it() -> None:
    memories: dict[str, WorkerMemory] = {}
    first = stream(memories)
    one, two = RunCommand("1", "f"), RunCommand("2", "f")
    first.start(one)
    first.start(two)
    assert sent(first) == [one, two]
    assert sent(stream(memories, "1")) == [two]
    assert sent(stream(memories)) == [one, two]


def test_an_interrupt_is_sent_again_until_the_run_has_ended() -> None:
    memories: dict[str, WorkerMemory] = {}
    first = stream(memories)
    first.start(RunCommand("1", "f"))
    first.interrupt("1")
    first.interrupt("unknown")
    assert sent(stream(memories, "1")) == [InterruptRun("1")]
    result = RunResult("1", False, error_type="canceled")
    assert first.receive(Batch((result,), 1)) == [RunEnded(result)]
    assert sent(stream(memories)) == []


def test_an_interrupt_belongs_to_a_run_not_to_its_id() -> None:
    """The id may be used again: that run was not interrupted."""
    memories: dict[str, WorkerMemory] = {}
    first = stream(memories)
    first.start(RunCommand("1", "f"))
    first.interrupt("1")
    first.receive(Batch((RunResult("1", False),), 1))
    again = RunCommand("1", "f", b"again")
    first.start(again)
    assert memories["one"].interrupted == set()
    assert sent(stream(memories)) == [again]


def test_a_result_counts_once() -> None:
    session = stream({})
    session.start(RunCommand("1", "f"))
    result = RunResult("1", True)
    assert session.receive(Batch((result,), 1)) == [RunEnded(result)]
    assert session.receive(Batch((result,), 1)) == [], "the same message on another stream"
    assert session.receive(Batch((result,), 2)) == [StaleResult("1")]


def test_a_stream_opens_with_a_registration() -> None:
    with pytest.raises(ProtocolViolationError, match="not with RunResult"):
        SchedulerSession({}).receive(RunResult("1", True))


def test_the_end_of_an_earlier_attempt_is_not_the_end_of_this_one() -> None:
    """The run was taken for lost, and then given to the same worker again, which has not stopped the first attempt."""
    memories: dict[str, WorkerMemory] = {}
    first = stream(memories)
    again = RunCommand("1", "f", attempt=2)
    first.start(again)
    assert first.receive(Batch((RunResult("1", True, b"old", attempt=1),), 1)) == [StaleResult("1")]
    late = RunResult("1", True, b"new", attempt=2)
    assert first.receive(Batch((late,), 2)) == [RunEnded(late)]


@pytest.mark.parametrize(("attempt", "sends"), [(1, True), (2, False), (0, False)])
def test_a_worker_that_has_an_earlier_attempt_only_is_sent_this_one(attempt: int, sends: bool) -> None:
    memories: dict[str, WorkerMemory] = {}
    command = RunCommand("1", "f", attempt=2)
    stream(memories).start(command)
    session = SchedulerSession(memories)
    session.receive(
        Registration(
            protocol_major=WIRE_PROTOCOL_MAJOR,
            extensions=(BATCH,),
            instance_id="one",
            active_run_ids=("1",),
            active_runs=(ActiveRun("1", attempt),),
        )
    )
    assert sent(session) == ([command] if sends else [])


def test_a_worker_with_as_many_runs_as_it_may_have_comes_back() -> None:
    assert MAX_RUNS + MAX_UNCONFIRMED <= MAX_ACTIVE_RUNS
    memories: dict[str, WorkerMemory] = {}
    command = RunCommand("run-7", "f")
    stream(memories).start(command)
    runs = [f"run-{number}" for number in range(MAX_RUNS + MAX_UNCONFIRMED)]
    assert sent(stream(memories, *runs)) == []
    with pytest.raises(ProtocolViolationError, match="100001 active_run_ids; at most 100000"):
        stream({}, *(str(number) for number in range(MAX_ACTIVE_RUNS + 1)))
