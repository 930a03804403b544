"""Who is connected to a server: bounded in all and by address, so that descriptors stay free for those who work.

    new --> idle <--> busy --> gone        idle: no whole request is there, or the last one is answered

When there are too many, the connection that has been idle for longest is closed, and the new one has its place; only where all are busy
the new one is refused. A sweep once a second closes what has been idle, or has not read its answer, for too long: one timer for all, since
one for each request would cost more than parsing it.
"""

import asyncio
import resource
import time
from collections import Counter
from typing import Protocol

import msgspec

SWEEP_S = 1.0


class ConnectionLimits(msgspec.Struct, frozen=True):
    """Bounds of a server's connections. `by_address` does not count for loopback, where everybody has one address."""

    head_bytes: int = 64 << 10
    headers: int = 128
    head_s: float = 15.0  # from the first byte to the whole head
    idle_s: float = 15.0  # until the first byte
    unread_s: float = 300.0  # while the client reads nothing of its answer
    ping_s: float = 20.0  # a websocket that was silent for so long is asked whether it is there, and has as long to answer
    connections: int = 4096
    by_address: int = 1024

    @classmethod
    def for_this_process(cls) -> "ConnectionLimits":
        """As many connections as descriptors allow, a quarter of which stay free for files and models."""
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        room = 1 << 20 if soft == resource.RLIM_INFINITY else soft - max(32, soft // 4)
        connections = max(8, min(room, cls().connections))
        return cls(connections=connections, by_address=max(4, connections // 4))


class Member(Protocol):
    """A connection, as the crowd sees it."""

    address: str

    def close_idle(self) -> None: ...

    def check_time(self, now_s: float, limits: ConnectionLimits) -> None:
        """Close if it is over its time."""
        ...


class Crowd:
    """All connections of one server. Lives on the loop."""

    def __init__(self, limits: ConnectionLimits) -> None:
        self.limits = limits
        self._all: set[Member] = set()
        self._idle: dict[Member, None] = {}  # those idle for longest come first
        self._by_address: Counter[str] = Counter()
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._all)

    def join(self, member: Member) -> bool:
        """Whether there is a place for it."""
        limits, address = self.limits, member.address
        local = address.startswith("127.") or address in ("::1", "")
        if not local and self._by_address[address] >= limits.by_address and not self._shed(address):
            return False
        if len(self._all) >= limits.connections and not self._shed(None):
            return False
        self._all.add(member)
        self._idle[member] = None
        self._by_address[address] += 1
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(SWEEP_S, self._sweep)
        return True

    def leave(self, member: Member) -> None:
        if member not in self._all:
            return
        self._all.discard(member)
        self._idle.pop(member, None)
        self._by_address[member.address] -= 1
        if self._by_address[member.address] <= 0:
            del self._by_address[member.address]

    def busy(self, member: Member) -> None:
        self._idle.pop(member, None)

    def idle(self, member: Member) -> None:
        if member in self._all:
            self._idle[member] = None

    def _shed(self, address: str | None) -> bool:
        for member in self._idle:
            if address is None or member.address == address:
                member.close_idle()
                return True
        return False

    def _sweep(self) -> None:
        self._timer = None
        now_s = time.monotonic()
        for member in list(self._all):
            member.check_time(now_s, self.limits)
        if self._all:
            self._timer = asyncio.get_running_loop().call_later(SWEEP_S, self._sweep)
