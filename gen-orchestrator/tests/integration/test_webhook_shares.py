"""Receivers that drip hold up nobody else's webhooks: a request has a limit in all, and an owner a share of the places."""

import asyncio
import io
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import msgspec
from dripping import HEAD, Dripping
from waiting import eventually
from webhook_receiver import Receiver

from gen_orchestrator.api.run_object import RunObjects
from gen_orchestrator.domain.runs import Ending, Run, RunState
from gen_orchestrator.domain.webhooks import Delivery
from gen_orchestrator.store.memory import MemoryStore
from gen_orchestrator.store.ops import Accept, Finish, Lease
from gen_orchestrator.store.writer import Writer
from gen_orchestrator.webhooks import AT_ONCE, Receivers, Webhooks, WebhookSecret
from gen_worker.clock import SteadyCalendar, SystemClock
from gen_worker.log import Log


class Told:
    """A leader's webhooks, and runs of several owners that end."""

    def __init__(self, folder: Path, timeout_s: float) -> None:
        self.store = MemoryStore(time.time)
        leader = self.store.campaign("n", "a", 1e9)
        assert leader is not None
        self.writer = Writer(self.store, leader.epoch, lambda: None)
        clock = SystemClock()
        self._calendar = SteadyCalendar(clock)
        secret, receivers, log = WebhookSecret.from_folder(folder), Receivers(allow_private=True), Log(io.StringIO())
        self.webhooks = Webhooks(self.store, self.writer, secret, receivers, RunObjects(), clock, self._calendar, log, timeout_s=timeout_s)

    def end_a_run(self, run_id: str, owner: str, url: str) -> None:
        at, webhook = time.time(), msgspec.json.encode({"url": url})
        run = Run(
            id=run_id, owner=owner, endpoint="e", function="f", tag="prod", release_id="r", payload=b"\x80", created_at=at, webhook=webhook
        )  # fmt: skip
        told = Delivery(id=f"{run_id}.ended", run_id=run_id, moment="ended", created_at=at, next_at=self._calendar.unix_s())
        for op in (Accept(run), Lease(run_id, 1, "w", at), Finish(run_id, 1, Ending(state=RunState.SUCCEEDED, at=at), told)):
            self.writer.put(op, lambda _: self.webhooks.look())

    def delivery(self, run_id: str) -> Delivery | None:
        return next(iter(self.store.deliveries_of(run_id)), None)

    def is_delivered(self, run_id: str) -> bool:
        found = self.delivery(run_id)
        return found is not None and found.state == "delivered"


@asynccontextmanager
async def telling(folder: Path, timeout_s: float) -> AsyncIterator[Told]:
    told = Told(folder, timeout_s)
    told.webhooks.start()
    try:
        yield told
    finally:
        await told.webhooks.stop()
        await told.writer.close()


def test_one_owners_receivers_leave_places_for_the_others(tmp_path: Path) -> None:
    async def scenario() -> None:
        with ExitStack() as stack:
            slow = [stack.enter_context(Dripping(HEAD)) for _ in range(8)]
            receiver = Receiver()
            stack.callback(receiver.close)
            async with telling(tmp_path, 300.0) as told:
                for n in range(3 * AT_ONCE):
                    told.end_a_run(f"slow-{n}", "mallory", slow[n % len(slow)].url)
                await eventually(lambda: sum(each.held for each in slow) == AT_ONCE // 2)
                for n in range(4):
                    told.end_a_run(f"good-{n}", f"owner-{n}", receiver.url)
                await eventually(lambda: all(told.is_delivered(f"good-{n}") for n in range(4)))
                assert sum(each.held for each in slow) == AT_ONCE // 2, "and none of them was ended for it"

    asyncio.run(scenario())


def test_a_receiver_that_drips_is_left_at_the_limit(tmp_path: Path) -> None:
    async def scenario() -> None:
        with Dripping(HEAD) as slow:
            async with telling(tmp_path, 0.3) as told:
                told.end_a_run("one", "ann", slow.url)
                found = await eventually(lambda: (each := told.delivery("one")) and each.tries and each)
                assert (found.state, found.tries[0].status) == ("pending", 0)
                assert "ReadTimeout" in found.tries[0].error
                await eventually(slow.was_left)

    asyncio.run(scenario())
