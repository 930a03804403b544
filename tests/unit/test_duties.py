"""The boundary around tasks of the worker."""

import asyncio
import io

import pytest

from gen_worker.errors import FatalError
from gen_worker.foreign import contained
from gen_worker.log import Log
from gen_worker.runtime.duties import Duties


class UnshowableError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


RAISED = [
    ValueError("x"),
    UnshowableError(),
    SystemExit(3),
    KeyboardInterrupt(),
    asyncio.CancelledError(),
    GeneratorExit(),
    BaseException("x"),
]


@pytest.mark.parametrize("raised", RAISED, ids=lambda exc: type(exc).__name__)
async def test_a_task_that_fails_is_answered_for_and_ends_no_other(raised: BaseException) -> None:
    answers: list[Exception] = []
    released = asyncio.Event()

    async def broken() -> None:
        raise raised

    async def other() -> None:
        await released.wait()

    async with asyncio.TaskGroup() as tasks:
        duties = Duties(tasks, Log(io.StringIO()))
        duties.start(broken(), "broken", answers.append)
        fine = tasks.create_task(other())
        while not answers:
            await asyncio.sleep(0)
        released.set()
    assert not fine.cancelled()
    assert [type(answer) for answer in answers] == [type(raised) if isinstance(raised, Exception) else FatalError]


@pytest.mark.parametrize("raised", RAISED, ids=lambda exc: type(exc).__name__)
async def test_an_attempt_never_raises(raised: BaseException) -> None:
    def broken(*_: object) -> None:
        raise raised

    answers: list[Exception] = []
    async with asyncio.TaskGroup() as tasks:
        Duties(tasks, Log(io.StringIO())).attempt(broken, "broken", answers.append)
    assert len(answers) == 1


async def test_an_answer_that_fails_is_noted() -> None:
    def broken(*_: object) -> None:
        raise ValueError("x")

    log = io.StringIO()
    async with asyncio.TaskGroup() as tasks:
        Duties(tasks, Log(log)).attempt(broken, "broken", broken)
    assert "worker.answer_failed" in log.getvalue()


async def test_the_end_of_the_worker_ends_its_tasks_without_an_answer() -> None:
    answers: list[Exception] = []

    async def worker() -> None:
        async with asyncio.TaskGroup() as tasks:
            Duties(tasks, Log(io.StringIO())).start(asyncio.Event().wait(), "waiting", answers.append)
            await asyncio.sleep(0)
            raise ValueError("the end")

    with pytest.raises(ExceptionGroup, match="unhandled"):
        await worker()
    assert answers == []


@pytest.mark.parametrize("raised", [*RAISED, StopIteration(), StopAsyncIteration()], ids=lambda exc: type(exc).__name__)
async def test_whatever_foreign_code_raises_in_a_thread_reaches_its_waiter_as_an_ordinary_exception(raised: BaseException) -> None:
    def broken() -> None:
        raise raised

    with pytest.raises(Exception) as caught:  # noqa: PT011 - that it is one is the point
        await asyncio.wait_for(asyncio.get_running_loop().run_in_executor(None, contained, broken), 60)
    assert not isinstance(caught.value, TimeoutError)
