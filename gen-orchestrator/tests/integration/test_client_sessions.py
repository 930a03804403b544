"""`Client.session` and `AsyncClient.session`, against `cozyctl dev` and `cozyctl up`."""

import asyncio
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import msgspec
import pytest
from realtime_served import Served, dev_served, up_served
from waiting import eventually, until

from gen_worker.client import (
    AsyncClient,
    AsyncSession,
    Client,
    GatewayError,
    NotFoundError,
    Patience,
    RunCanceledError,
    SessionEnd,
    SessionError,
    UnreachableError,
)
from gen_worker.net.retry import RetryPolicy
from gen_worker.wire.realtime import MAX_FRAME_BYTES

REF = "local/demo/"


class Told(msgspec.Struct):
    a: str
    b: int


@pytest.fixture(scope="module", params=["dev", "up"])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "dev":
        with dev_served(folder) as found:
            yield found
        return
    with up_served(folder) as (found, _platform):
        yield found


@pytest.fixture
def client(served: Served) -> Iterator[Client]:
    with Client(served.url) as found:
        yield found


def test_messages_of_every_kind_go_both_ways(client: Client, served: Served) -> None:
    with client.session(REF + "mirror", timeout_s=60, priority="high") as session:
        for sent in (b"\x00\xff", b"", b"x" * 65_536, bytearray(b"y" * MAX_FRAME_BYTES)):
            session.send(sent)
            assert session.receive() == sent
        session.send("text: ü€")
        assert session.receive(timeout_s=60) == "text: ü€".encode()
        session.send_json({"n": [1, None]})
        assert session.receive_json() == {"n": [1, None]}
        session.send("json")
        assert session.receive_json(Told) == Told(a=session.id, b=1)
        with pytest.raises(TimeoutError):
            session.receive(timeout_s=0.01)
        assert session.ended is None
        with pytest.raises(ValueError, match="in pieces"):
            session.send(b"x" * (MAX_FRAME_BYTES + 1))
        session.send("still here")
        assert session.receive() == b"still here"
    assert session.ended == SessionEnd(1000)
    client.handle(session.id).result(wait_s=60)  # it is a run, which succeeded
    with pytest.raises(SessionError, match="the session is over"):
        session.send("late")
    session.close()


def test_one_thread_sends_while_another_receives(client: Client) -> None:
    with client.session(REF + "mirror") as session:

        def send() -> None:
            for n in range(2000):
                session.send(str(n))
            session.send("close")

        sending = threading.Thread(target=send)
        sending.start()
        assert [int(message) for message in session] == list(range(2000)), "the iteration ends when the handler closes"
        sending.join()
    assert session.ended == SessionEnd(1000, "closed")


@pytest.mark.parametrize(
    ("function", "sent", "code", "reason"),
    [("mirror", "fail", 1011, "error:ValueError"), ("patient", "", 1011, "error:DeadlineError")],
)
def test_a_session_that_fails_is_an_error(client: Client, function: str, sent: str, code: int, reason: str) -> None:
    with client.session(REF + function, timeout_s=0.05 if function == "patient" else 60) as session:
        session.send(sent)
        with pytest.raises(SessionError) as caught:
            list(session)
    error = caught.value
    assert (error.close_code, error.reason, error.run_id, error.code) == (code, reason, session.id, "session_ended")
    assert error.run_id in str(pickle.loads(pickle.dumps(error)))
    with pytest.raises(SessionError):
        session.receive()


def test_what_came_before_the_end_is_delivered_first(client: Client) -> None:
    with client.session(REF + "flood") as session:
        session.send("300 0")
        session.send("not a number")
        got: list[Any] = []
        with pytest.raises(SessionError, match="the handler raised ValueError"):
            got.extend(session)
        assert [int.from_bytes(message, "big") for message in got] == list(range(300))


def test_refusals_are_those_of_calls(client: Client, served: Served) -> None:
    with pytest.raises(NotFoundError, match="mirror"):
        client.session(REF + "mirrow").open()
    with pytest.raises(GatewayError), client.session(REF + "echo"):
        pass
    with pytest.raises(TypeError, match="Did you mean 'timeout_s'"):
        client.session(REF + "mirror", timeout=5)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="timeout_s"):
        client.session(REF + "mirror", timeout_s="5")  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="open the session first"):
        client.session(REF + "mirror").send("x")


def test_nobody_there() -> None:
    patience = Patience(asking=RetryPolicy(tries=2, first_pause_s=0.01, max_pause_s=0.01, max_asked_s=1))
    with Client("http://127.0.0.1:1", patience=patience) as client, pytest.raises(UnreachableError, match="no server answers"):
        client.session("a/b/c").open()


def test_a_cancelled_run_ends_its_session(client: Client) -> None:
    with client.session(REF + "stubborn") as session:
        until(lambda: client.handle(session.id).status().status == "running", 60)
        client.handle(session.id).cancel()
        with pytest.raises(SessionError, match="cancelled"):
            session.receive()
    with pytest.raises(RunCanceledError):
        client.handle(session.id).result(wait_s=60)


def test_an_exception_or_a_closed_client_ends_the_session(served: Served) -> None:
    client = Client(served.url)
    with pytest.raises(ZeroDivisionError), client.session(REF + "patient") as left:
        raise ZeroDivisionError
    open_one = client.session(REF + "patient").open()
    client.close()
    with closing(Client(served.url)) as other:
        for session in (left, open_one):
            until(lambda: other.handle(session.id).status().status not in ("queued", "starting", "running"), 60)  # noqa: B023
    with pytest.raises(SessionError):
        open_one.send("x")


def test_a_reader_that_is_slow_holds_up_the_handler_and_loses_nothing(client: Client) -> None:
    with client.session(REF + "flood") as session:
        session.send("4000 4096")  # 16 MB, far beyond what is held for a reader
        inner: AsyncSession = session._inner
        until(lambda: len(inner._held) >= 250, 60)
        assert inner._held_bytes < 4 << 20
        numbers = []
        while len(numbers) < 4000:
            message = session.receive()
            assert isinstance(message, bytes)
            numbers.append(int.from_bytes(message[:4], "big"))
    assert numbers == list(range(4000))


async def test_asyncio_has_the_same_shape(served: Served) -> None:
    async with AsyncClient(served.url) as client:
        async with client.session(REF + "mirror") as session:
            await session.send_json({"a": 1})
            assert await session.receive_json() == {"a": 1}
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await session.receive()
            sending = [asyncio.create_task(session.send(str(n))) for n in range(100)]
            await asyncio.gather(*sending)
            await session.send("close")
            assert [int(message) async for message in session] == list(range(100))
        assert session.ended == SessionEnd(1000, "closed")
        with pytest.raises(RuntimeError, match="make another one"):
            await session.open()


async def test_cancelling_a_task_ends_its_session(served: Served) -> None:
    opened: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def listen(client: AsyncClient) -> None:
        async with client.session(REF + "patient") as session:
            opened.set_result(session.id)
            async for _ in session:
                pass

    async with AsyncClient(served.url) as client:
        task = asyncio.create_task(listen(client))
        run_id = await opened
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await eventually(lambda: served.run(run_id).get("status") not in ("queued", "starting", "running"), 60)


LISTENER = """
import sys
from gen_worker.client import Client
with Client(sys.argv[1]).session(sys.argv[2]) as session:
    print(session.id, flush=True)
    for message in session:
        print(message, flush=True)
"""


def test_ctrl_c_ends_the_session(served: Served) -> None:
    command = [sys.executable, "-c", LISTENER, served.url, REF + "patient"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        run_id = program.stdout.readline().strip()
        program.send_signal(signal.SIGINT)
        _, said = program.communicate(timeout=60)
    assert said.strip().endswith("KeyboardInterrupt")
    assert said.count("Traceback") == 1, said
    until(lambda: served.run(run_id).get("status") not in ("queued", "starting", "running"), 60)
