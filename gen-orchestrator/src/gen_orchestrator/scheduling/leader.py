"""Being the leader: campaign, renew, step down. Everything that a leader needs lives as long as its lease.

The lease is a row with a growing epoch in the store. It lasts 5 s and is renewed every 1.5 s; a leader that could not
renew for 4 s by its own monotonic clock stops itself, before another node may begin. If it writes after that, the write
is refused: each batch names its epoch. Where no other process can write the store (`is_alone`), a slow or locked store
deposes nobody: the leader waits, and says why.

The lease is renewed in a thread of its own, because the shared threads may all be waiting for the same slow store.

Epochs only grow. A store that returns a smaller one, or gives the same one out again, is not the same store as before:
it is a backup, or a standby that lagged behind. Answered runs are missing from it, and a leader of the lost epoch could
write to it. `Epochs` notices this, and the program ends with the reason, so that an operator sees it.
"""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from gen_orchestrator.store.base import Leader, Leadership, StoreError, StoreFullError, StoreMovedError
from gen_worker.clock import Clock
from gen_worker.log import Log

T = TypeVar("T")
LEASE_S = 5.0
RENEW_S = 1.5
GIVE_UP_S = 4.0
POLL_S = 0.5


class StoreWentBackError(StoreError):
    """The store has lost writes that it had confirmed."""


class Epochs:
    """The newest epoch seen by this process."""

    def __init__(self) -> None:
        self._newest = 0

    def saw(self, leader: Leader, *, is_new: bool) -> None:
        """A leader named by the store; `is_new`: the store has just made it leader. `StoreWentBackError` when its epoch is impossible."""
        if leader.epoch < self._newest + is_new:
            raise StoreWentBackError(
                f"the store has gone back in time: it is at epoch {leader.epoch}, and this node has seen {self._newest}. It lacks what was "
                "written last, such as answered runs. Is it a backup, or a standby that lagged behind? To go on with it, start again"
            )
        self._newest = leader.epoch


async def campaign(
    store: Leadership,
    node_id: str,
    address: str,
    http_url: str,
    epochs: Epochs,
    seen: Callable[[Leader | None], None],
    log: Log,
    *,
    is_patient: bool = True,
) -> Leader:
    """Wait until this node leads. `seen` is told at each check who leads meanwhile: None while the store does not
    answer. `StoreWentBackError` when the store is another one than before; any `StoreError` unless `is_patient`.
    """
    with _own_thread() as thread:
        told = ""
        while True:
            leader, now = None, None
            try:
                leader = await _aside(thread, store.campaign, node_id, address, LEASE_S, http_url)
                now = leader or await _aside(thread, store.leader)
            except StoreError as exc:
                if not is_patient:
                    raise
                if told != "store":
                    log.warning("leader.store_unavailable", error=str(exc))
                told = "store"
            if now is not None:
                epochs.saw(now, is_new=leader is not None)
            if leader is not None:
                log.info("leader.elected", node_id=node_id, epoch=leader.epoch)
                return leader
            seen(now)
            if now is not None and told != now.node_id:
                log.info("leader.standing_by", node_id=node_id, leader=now.node_id)
                told = now.node_id
            await asyncio.sleep(POLL_S)


async def hold(
    store: Leadership,
    leader: Leader,
    clock: Clock,
    deposed: Callable[[str], None],
    log: Log,
    trouble: Callable[[str], None] = lambda why: None,
) -> None:
    """Renew until the leadership is lost, then report that once. A store that does not answer is not waited for, unless no
    other process can write it. `trouble` is told why the store currently refuses writes, and gets an empty text when it accepts them again.
    """
    with _own_thread() as thread:
        renewed_s = clock.now_s()
        wait_s = RENEW_S
        while True:
            await asyncio.sleep(wait_s)
            asked_s, wait_s = clock.now_s(), RENEW_S
            try:
                async with asyncio.timeout(max(0.0, renewed_s + GIVE_UP_S - asked_s)):
                    if not await _aside(thread, store.renew, leader, LEASE_S):
                        deposed("another node leads")
                        return
                renewed_s = asked_s
                trouble("")
            except (StoreFullError, StoreMovedError) as exc:
                # It refuses every node, so nobody can take over. The epoch in each batch protects the writes when there is room again.
                log.warning("leader.not_renewed", error=str(exc))
                renewed_s = asked_s
                trouble(str(exc))
            except (StoreError, TimeoutError) as exc:
                why = str(exc) or "the store does not answer"
                log.warning("leader.not_renewed", error=why)
                if store.is_alone:
                    renewed_s = clock.now_s()
                    trouble(why)
                    continue
                wait_s = POLL_S  # a crashed database is often back before the lease has expired
                if clock.now_s() + POLL_S > renewed_s + GIVE_UP_S:
                    deposed("the lease could not be renewed in time")
                    return


@contextmanager
def _own_thread() -> Iterator[ThreadPoolExecutor]:
    thread = ThreadPoolExecutor(1, thread_name_prefix="leader")
    try:
        yield thread
    finally:
        thread.shutdown(wait=False, cancel_futures=True)


async def _aside(thread: ThreadPoolExecutor, call: Callable[..., T], *arguments: object) -> T:
    return await asyncio.get_running_loop().run_in_executor(thread, call, *arguments)
