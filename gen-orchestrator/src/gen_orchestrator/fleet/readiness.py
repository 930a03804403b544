"""Starts a worker of a release before a tag moves to it, so a release that does not start is noticed before callers see it."""

import asyncio

from gen_orchestrator.fleet.keeper import Keeper
from gen_orchestrator.hub.registry import Registry
from gen_orchestrator.scheduling.pool import Pool
from gen_worker.clock import Clock

PREPARE_S = 60.0
FAILURE_CHARACTERS = 2000


class Readiness:
    """One for each leader."""

    def __init__(self, keeper: Keeper, pool: Pool, registry: Registry, clock: Clock) -> None:
        self._keeper = keeper
        self._pool = pool
        self._registry = registry
        self._clock = clock

    async def prepare(self, release_id: str) -> str:
        """Make sure that a worker of this release is ready. Returns "" once there is one, or it is slow to start;
        otherwise why its code does not start.
        """
        if not self._keeper.is_startable(release_id):
            return ""
        self._keeper.forget_failure(release_id)
        self._keeper.keep_ready(release_id)
        deadline_s = self._clock.now_s() + PREPARE_S
        while self._clock.now_s() < deadline_s:
            if any(worker.link is not None for worker in self._pool.of_release(release_id)):
                return ""
            if why := self._keeper.failures.get(release_id):
                if release_id not in self._registry.in_use():
                    self._keeper.withdraw(release_id)
                return why[-FAILURE_CHARACTERS:]
            await asyncio.sleep(0.02)
        return ""
