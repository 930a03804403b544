"""The current leader as this node sees it, and whether it can be reached."""

import asyncio
import contextlib

from gen_orchestrator.store.base import Leader

PROBE_S = 0.5
TRUSTED_S = 0.5  # how long the answer to a probe is valid


class Standing:
    """One for each node. `see` is told what the store says, and wakes everyone who waits for a change."""

    def __init__(self) -> None:
        self.leader: Leader | None = None
        self._epoch = 0  # the newest one seen
        self._changed = asyncio.Event()
        self._probes: dict[str, asyncio.Task[bool]] = {}

    def see(self, leader: Leader | None) -> None:
        """The store names this leader, or none."""
        if leader != self.leader:
            self.leader = leader
            self._epoch = max(self._epoch, leader.epoch if leader is not None else 0)
            self.tell()

    def begin(self, own: Leader) -> None:
        """This node leads but has not begun: nobody can be sent anywhere."""
        self.leader, self._epoch = None, own.epoch
        self.tell()

    def tell(self) -> None:
        """Something has changed: everyone who waits checks again."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def replaced(self, leader: Leader) -> None:
        """Return when another node leads instead of this one. A leader's absence is not enough, because its lease may still be valid."""
        while self._epoch <= leader.epoch:
            await self._changed.wait()

    async def changed(self, timeout_s: float) -> None:
        """Return at the next change, or after the time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._changed.wait()

    async def reachable(self, address: str) -> bool:
        """Whether a process accepts connections at `host:port`. A killed leader is named until its lease expires;
        meanwhile nobody is sent to it.
        """
        probe = self._probes.get(address)
        if probe is None:
            probe = self._probes[address] = asyncio.create_task(_answers(address), name="leader-probe")
            asyncio.get_running_loop().call_later(PROBE_S + TRUSTED_S, self._probes.pop, address, None)
        return await asyncio.shield(probe)


async def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        async with asyncio.timeout(PROBE_S):
            _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    except (OSError, TimeoutError, ValueError):
        return False
    writer.close()
    return True
