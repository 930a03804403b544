"""The machine's clock is set: nothing is delayed for hours, nothing happens too early, and no recent data is deleted."""

import asyncio
import io
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
from blake3 import blake3
from waiting import eventually
from webhook_receiver import Receiver

from gen_orchestrator.api.run_object import RunObjects
from gen_orchestrator.auth.worker_tokens import WorkerClaims, WorkerTokens
from gen_orchestrator.domain.runs import Ending, Run, RunState
from gen_orchestrator.domain.webhooks import DELAYS_S, Delivery, Try
from gen_orchestrator.hub.blobs import FolderBlobs
from gen_orchestrator.hub.models import ModelStore
from gen_orchestrator.hub.uploads import UploadLimits, Uploads
from gen_orchestrator.store.memory import MemoryStore
from gen_orchestrator.store.ops import Accept, AddDelivery, Finish, Lease, Op
from gen_orchestrator.store.writer import Writer
from gen_orchestrator.webhooks import Receivers, Webhooks, WebhookSecret
from gen_worker.clock import SteadyCalendar
from gen_worker.log import Log

HOURS_3 = 3 * 3600.0


class MovedClock:
    """Both clocks, moved by hand: `passed_s` has passed, and the one on the wall was set by `set_s`."""

    def __init__(self) -> None:
        self.passed_s = self.set_s = 0.0
        self._began = time.time()  # as files are stamped

    def now_s(self) -> float:
        return 1000.0 + self.passed_s

    def unix_s(self) -> float:
        return self._began + self.passed_s + self.set_s


class Told:
    """A leader's webhooks: runs that end, and a receiver that is told."""

    def __init__(self, clock: MovedClock, receiver: Receiver, store: MemoryStore, writer: Writer, folder: Path) -> None:
        self.store, self.writer, self.clock = store, writer, clock
        self.calendar = SteadyCalendar(clock)
        secret = WebhookSecret.from_folder(folder)
        self.webhooks = Webhooks(
            store, writer, secret, Receivers(allow_private=True), RunObjects(), clock, self.calendar, Log(io.StringIO())
        )
        self._url = receiver.url

    async def write(self, *ops: Op) -> None:
        for op in ops[:-1]:
            self.writer.put(op)
        written: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self.writer.put(ops[-1], written.set_result)
        await written
        self.webhooks.look()

    async def end_a_run(self, run_id: str) -> None:
        run = Run(
            id=run_id, owner="ann", endpoint="e", function="f", tag="prod", release_id="r", payload=b"\x80", created_at=self.clock.unix_s(),
            webhook=msgspec.json.encode({"url": self._url}),
        )  # fmt: skip
        at, due = self.clock.unix_s(), self.calendar.unix_s()
        told = Delivery(id=f"{run_id}.ended", run_id=run_id, moment="ended", created_at=at, next_at=due)
        await self.write(Accept(run), Lease(run_id, 1, "w", at), Finish(run_id, 1, Ending(state=RunState.SUCCEEDED, at=at), told))

    def delivery(self, run_id: str) -> Delivery:
        return self.store.deliveries_of(run_id)[0]


@asynccontextmanager
async def leading(clock: MovedClock, receiver: Receiver, store: MemoryStore, folder: Path) -> AsyncIterator[Told]:
    leader = store.campaign("n", "a", 1e9)
    assert leader is not None
    writer = Writer(store, leader.epoch, lambda: None)
    told = Told(clock, receiver, store, writer, folder)
    told.webhooks.start()
    try:
        yield told
    finally:
        await told.webhooks.stop()
        await writer.close()


def test_a_webhook_is_tried_again_after_the_time_that_has_passed(tmp_path: Path) -> None:
    async def scenario() -> None:
        clock, receiver = MovedClock(), Receiver()
        receiver.statuses, began = [500, 500], clock.unix_s()
        try:
            async with leading(clock, receiver, MemoryStore(time.time), tmp_path) as told:
                await told.end_a_run("one")
                await eventually(lambda: len(told.delivery("one").tries) == 1)
                clock.set_s = HOURS_3  # forward: nothing is due for that
                await told.end_a_run("two")
                await eventually(lambda: len(told.delivery("two").tries) == 1)
                await told.end_a_run("three")
                await eventually(lambda: told.delivery("three").state == "delivered")
                assert [len(told.delivery(run_id).tries) for run_id in ("one", "two")] == [1, 1]
                clock.set_s = -HOURS_3  # back: nothing is held up by that
                clock.passed_s = DELAYS_S[0] * 1.1
                told.webhooks.look()
                await eventually(lambda: [told.delivery(run_id).state for run_id in ("one", "two")] == ["delivered"] * 2)
                first, second = told.delivery("two").tries
                assert (first.at, second.at) == (began + HOURS_3, began + clock.passed_s - HOURS_3), "as the wall says"
        finally:
            receiver.close()

    asyncio.run(scenario())


def test_the_next_leader_whose_clock_was_set_back_holds_nothing_up(tmp_path: Path) -> None:
    async def scenario() -> None:
        clock, receiver, store = MovedClock(), Receiver(), MemoryStore(time.time)
        try:
            async with leading(clock, receiver, store, tmp_path) as told:
                await told.end_a_run("one")
                await eventually(lambda: told.delivery("one").state == "delivered")
                late = clock.unix_s() + HOURS_3
                many = [
                    Delivery(id=f"{n:03}", run_id="one", moment="ended", created_at=0, next_at=late + n, tries=(Try(0, 1),))
                    for n in range(600)
                ]
                await told.write(*map(AddDelivery, many))
            async with leading(clock, receiver, store, tmp_path) as told:
                horizon = told.calendar.unix_s() + 600
                await eventually(lambda: all(each.next_at <= horizon for each in store.pending_deliveries(1000)))
                assert len(store.pending_deliveries(1000)) == 600, "none was made too early"
                clock.passed_s = 601
                told.webhooks.look()
                await eventually(
                    lambda: "delivered" in [each.state for each in store.deliveries_of("one") if each.tries[:1] == (Try(0, 1),)]
                )
        finally:
            receiver.close()

    asyncio.run(scenario())


def test_what_is_young_stays_whatever_the_clock_is_set_to(tmp_path: Path) -> None:
    week_s = 7 * 86400.0
    for number, (set_s, passed_s, stays) in enumerate(
        ((week_s, 60, True), (-week_s, 60, True), (week_s, week_s, False), (0.0, week_s, False), (-week_s, 2.5 * week_s, False))
    ):
        clock, folder = MovedClock(), tmp_path / str(number)
        calendar = SteadyCalendar(clock)
        models = ModelStore(folder / "models", calendar.earliest_s)
        blob = models.blob_path(f"blake3:{blake3(b'x').hexdigest()}")
        blob.parent.mkdir(parents=True)
        blob.write_bytes(b"x")
        limits = UploadLimits(file_bytes=10, owner_bytes=10, keep_s=86400)
        uploads = Uploads(folder / "uploads", FolderBlobs(folder / "blobs"), limits, clock.unix_s, calendar.earliest_s)
        incoming = uploads.receive("ann", "a.txt", create=True)
        incoming.write(b"x")
        uploads.publish(incoming, incoming.keep(), create=True)
        clock.set_s, clock.passed_s = set_s, passed_s
        assert (models.collect().blobs, uploads.sweep()) == ((0, 0) if stays else (1, 1)), (set_s, passed_s)
        assert (uploads.find("ann", "a.txt") is not None) == stays


def test_a_worker_comes_back_with_a_token_of_before_the_clock_was_set_back(tmp_path: Path) -> None:
    ahead = WorkerTokens.from_folder(tmp_path, lambda: time.time() + 1800)
    token = ahead.issue(WorkerClaims("w1", "ann", "rel"))
    assert WorkerTokens.from_folder(tmp_path).verify(token).worker_id == "w1"
