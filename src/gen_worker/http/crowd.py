"""Limits the connections of a server, in all and by address, so that file descriptors stay free for working clients.

    new --> idle <--> receiving <--> busy --> gone     idle: no head has arrived, or the last request is answered
                                                       receiving: a head has arrived, and its body is incomplete

When there are too many, one is closed in favour of the new one: the one that has been idle for longest, or that began a
body even earlier and is slower than the minimum rate. So clients that hold connections open, send half a body or send
it in drips lock nobody out, whatever deadline their bodies have. A client that sends fast enough, or is being answered,
keeps its place; only when all do, the new one is refused. A sweep once a second closes connections that have been idle,
or have not read their answer, for too long: one timer for all, because one for each request would cost more than
parsing it.
"""

import asyncio
import resource
import time
from collections import Counter
from typing import Protocol

import msgspec

SWEEP_S = 1.0
MIN_BODY_BYTES_S = 65536  # slower bodies are ended after their deadline (`asgi.BodyReader`), and earlier when others wait
STALLED_S = 0.25  # allowed lag behind that rate: some round trips of a distant client


class ConnectionLimits(msgspec.Struct, frozen=True):
    """Limits of a server's connections. `by_address` does not apply to loopback, where all clients have the same address."""

    head_bytes: int = 64 << 10
    headers: int = 128
    head_s: float = 15.0  # from the first byte to the complete head
    idle_s: float = 15.0  # until the first byte
    unread_s: float = 300.0  # while the client reads nothing of its answer
    ping_s: float = 20.0  # a websocket that is silent this long gets a ping, and has as long to answer
    connections: int = 4096
    by_address: int = 1024

    @classmethod
    def for_this_process(cls) -> "ConnectionLimits":
        """As many connections as file descriptors allow; a quarter of them stay free for files and models."""
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        room = 1 << 20 if soft == resource.RLIM_INFINITY else soft - max(32, soft // 4)
        connections = max(8, min(room, cls().connections))
        return cls(connections=connections, by_address=max(4, connections // 4))


class Member(Protocol):
    """A connection as the crowd sees it."""

    address: str

    def close_idle(self) -> None: ...

    def close_stalled(self, began_s: float, now_s: float) -> bool:
        """Close the connection if the body that began then is too slow because of its client. Whether it is closing now."""
        ...

    def check_time(self, now_s: float, limits: ConnectionLimits) -> None:
        """Close the connection if its time is over."""
        ...


class Crowd:
    """All connections of one server. Lives on the loop."""

    def __init__(self, limits: ConnectionLimits) -> None:
        self.limits = limits
        self._all: set[Member] = set()
        self._idle: dict[Member, float] = {}  # since when; those idle for longest come first
        self._receiving: dict[Member, float] = {}  # since when; the oldest come first
        self._by_address: Counter[str] = Counter()
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._all)

    def join(self, member: Member) -> bool:
        """Whether there is room for the connection."""
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
        """More of its request's body is expected. `received` ends this."""
        self._receiving.setdefault(member, time.monotonic())

    def received(self, member: Member) -> None:
        self._receiving.pop(member, None)

    def _shed(self, address: str | None) -> bool:
        """Close the connection that has done nothing for longest; if an address is given, one from there. Whether there was one."""
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
