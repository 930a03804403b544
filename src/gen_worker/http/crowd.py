"""Who is connected to a server: bounded in all and by address, so that descriptors stay free for those who work.

    new --> idle <--> receiving <--> busy --> gone     idle: no head is there, or the last request is answered
                                                       receiving: a head is there, and not all of its body

When there are too many, one gives its place to the new one: that which has been idle for longest, or which began a body even earlier and
does not keep up with the slowest rate that is allowed. So clients that hold connections open, send half a body or let it drip keep nobody
out, whatever deadline their bodies have. Who sends as fast as that, or is being answered, keeps its place; only where all do, the new one
is refused. A sweep once a second closes what has been idle, or has not read its answer, for too long: one timer for all, since one for each
request would cost more than parsing it.
"""

import asyncio
import resource
import time
from collections import Counter
from typing import Protocol

import msgspec

SWEEP_S = 1.0
MIN_BODY_BYTES_S = 65536  # slower bodies end after their deadline (`asgi.BodyReader`), and earlier where others wait
STALLED_S = 0.25  # behind that rate: some round trips of a client far away


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

    def close_stalled(self, began_s: float, now_s: float) -> bool:
        """Close if the body that began then does not keep up, by its client's doing. Whether it is closing now."""
        ...

    def check_time(self, now_s: float, limits: ConnectionLimits) -> None:
        """Close if it is over its time."""
        ...


class Crowd:
    """All connections of one server. Lives on the loop."""

    def __init__(self, limits: ConnectionLimits) -> None:
        self.limits = limits
        self._all: set[Member] = set()
        self._idle: dict[Member, float] = {}  # since when; those idle for longest come first
        self._receiving: dict[Member, float] = {}  # likewise
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
        self._idle[member] = time.monotonic()
        self._by_address[address] += 1
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(SWEEP_S, self._sweep)
        return True

    def leave(self, member: Member) -> None:
        if member not in self._all:
            return
        self._all.discard(member)
        self._idle.pop(member, None)
        self._receiving.pop(member, None)
        self._by_address[member.address] -= 1
        if self._by_address[member.address] <= 0:
            del self._by_address[member.address]

    def busy(self, member: Member) -> None:
        self._idle.pop(member, None)

    def idle(self, member: Member, since_s: float) -> None:
        if member in self._all:
            self._idle[member] = since_s

    def receiving(self, member: Member) -> None:
        """More of its request's body is to come. `received` ends this."""
        self._receiving.setdefault(member, time.monotonic())

    def received(self, member: Member) -> None:
        self._receiving.pop(member, None)

    def _shed(self, address: str | None) -> bool:
        """Have the connection closed that does nothing for longest; of this address, if one is given. Whether there was one."""
        now_s = time.monotonic()
        idle = next((member for member in self._idle if address is None or member.address == address), None)
        idle_since_s = now_s if idle is None else self._idle[idle]
        for member, began_s in self._receiving.items():
            if began_s > idle_since_s:
                break
            if (address is None or member.address == address) and member.close_stalled(began_s, now_s):
                return True
        if idle is not None:
            idle.close_idle()
        return idle is not None

    def _sweep(self) -> None:
        self._timer = None
        now_s = time.monotonic()
        for member in list(self._all):
            member.check_time(now_s, self.limits)
        if self._all:
            self._timer = asyncio.get_running_loop().call_later(SWEEP_S, self._sweep)
