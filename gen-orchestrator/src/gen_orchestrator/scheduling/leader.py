"""Being the leader: campaign, renew, step down; what an open shard needs lives as long as the lease does.

The lease is a row with a growing epoch in the store. It is renewed every 1.5 s for 5 s; a leader that could not renew for 4 s by its
own monotonic clock stops itself, before anybody else may begin. Whatever it wrote after all is refused: each batch names its epoch.
"""

import asyncio
from collections.abc import Callable

from gen_orchestrator.store.base import Leader, Leadership, StoreError, StoreFullError, StoreMovedError
from gen_worker.clock import Clock
from gen_worker.log import Log

LEASE_S = 5.0
RENEW_S = 1.5
GIVE_UP_S = 4.0
POLL_S = 0.5


async def campaign(store: Leadership, node_id: str, address: str, http_url: str, seen: Callable[[Leader | None], None], log: Log) -> Leader:
    """Wait until this node leads. `seen` is told at each look who leads meanwhile; nobody, while the store does not answer."""
    told = ""
    while True:
        leader, now = None, None
        try:
            leader = await asyncio.to_thread(store.campaign, node_id, address, LEASE_S, http_url)
            now = leader or await asyncio.to_thread(store.leader)
        except StoreError as exc:
            if told != "store":
                log.warning("leader.store_unavailable", error=str(exc))
            told = "store"
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
    """Renew until it is lost, then say so once. A store that does not answer at all is not waited for. `trouble` hears why a store takes
    nothing at present, and of an empty text when it does again."""
    renewed_s = clock.now_s()
    wait_s = RENEW_S
    while True:
        await asyncio.sleep(wait_s)
        asked_s, wait_s = clock.now_s(), RENEW_S
        try:
            async with asyncio.timeout(max(0.0, renewed_s + GIVE_UP_S - asked_s)):
                if not await asyncio.to_thread(store.renew, leader, LEASE_S):
                    deposed("another node leads")
                    return
            renewed_s = asked_s
            trouble("")
        except (StoreFullError, StoreMovedError) as exc:
            # It says no to every node: nobody can take over. The epoch in each batch guards what is written when there is room again.
            log.warning("leader.not_renewed", error=str(exc))
            renewed_s = asked_s
            trouble(str(exc))
        except (StoreError, TimeoutError) as exc:
            log.warning("leader.not_renewed", error=str(exc) or "the store does not answer")
            wait_s = POLL_S  # a database that crashed is often back before the lease is over
            if clock.now_s() + POLL_S > renewed_s + GIVE_UP_S:
                deposed("the lease could not be renewed in time")
                return
