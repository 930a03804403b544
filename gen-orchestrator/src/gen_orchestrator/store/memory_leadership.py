"""Who leads, for the store in memory: one leader at a time, each with an epoch of its own."""

import threading
from collections.abc import Callable

from gen_orchestrator.store.base import SKEW_S, Leader


class MemoryLeadership:
    """A lease that ends by itself unless it is renewed. `now_s` is the database's clock."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self._lock = threading.Lock()
        self._leader: Leader | None = None
        self._lease_until = 0.0
        self._epoch = 0

    def campaign(self, node_id: str, address: str, lease_s: float, http_url: str = "") -> Leader | None:
        with self._lock:
            now_s = self._now_s()
            if self._leader is not None and now_s < self._lease_until <= now_s + lease_s + SKEW_S and self._leader.node_id != node_id:
                return None
            self._epoch += 1
            self._leader = Leader(node_id, self._epoch, address, http_url)
            self._lease_until = now_s + lease_s
            return self._leader

    def renew(self, leader: Leader, lease_s: float) -> bool:
        with self._lock:
            if self._leader is None or self._leader.epoch != leader.epoch:
                return False
            self._lease_until = self._now_s() + lease_s
            return True

    def resign(self, leader: Leader) -> None:
        with self._lock:
            if self._leader is not None and self._leader.epoch == leader.epoch:
                self._leader = None

    def leader(self) -> Leader | None:
        with self._lock:
            return self._leader if self._lease_until > self._now_s() else None
