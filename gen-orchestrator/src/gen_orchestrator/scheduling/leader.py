"""Being the leader: campaign, renew, step down; what an open shard needs lives as long as the lease does.

The lease is a row with a growing epoch in the store. It is renewed every 1.5 s for 5 s; a leader that could not renew for 4 s by its
own monotonic clock stops itself, before anybody else may begin. Whatever it wrote after all is refused: each batch names its epoch.
"""

import asyncio
from collections.abc import Callable

from gen_orchestrator.store.base import Leader, Leadership, StoreError
from gen_worker.clock import Clock
from gen_worker.log import Log

LEASE_S = 5.0
RENEW_S = 1.5
GIVE_UP_S = 4.0
POLL_S = 0.5


async def campaign(store: Leadership, node_id: str, address: str, log: Log) -> Leader:
    """Wait until this node leads."""
    told = False
    while True:
        try:
            leader = await asyncio.to_thread(store.campaign, node_id, address, LEASE_S)
        except StoreError as exc:
            log.warning("leader.store_unavailable", error=str(exc))
            leader = None
        if leader is not None:
            log.info("leader.elected", node_id=node_id, epoch=leader.epoch)
            return leader
        if not told:
            log.info("leader.standing_by", node_id=node_id)
            told = True
        await asyncio.sleep(POLL_S)


async def hold(store: Leadership, leader: Leader, clock: Clock, deposed: Callable[[str], None], log: Log) -> None:
    """Renew until it is lost, then say so once."""
    renewed_s = clock.now_s()
    while True:
        await asyncio.sleep(RENEW_S)
        asked_s = clock.now_s()
        try:
            if not await asyncio.to_thread(store.renew, leader, LEASE_S):
                deposed("another node leads")
                return
            renewed_s = asked_s
        except StoreError as exc:
            log.warning("leader.not_renewed", error=str(exc))
            if clock.now_s() - renewed_s > GIVE_UP_S:
                deposed("the lease could not be renewed in time")
                return
