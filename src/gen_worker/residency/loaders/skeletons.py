"""Skeletons and assembled pipelines that wait for their model's next load, within a bound."""

import threading
from collections import OrderedDict
from typing import Any

from gen_worker.residency.loaders.skeleton import Skeleton

LIMIT_BYTES = 512 << 20  # of host memory, about
LIMIT_ASSEMBLED = 16


class Skeletons:
    """By part id. A skeleton is with the load that uses it, or on the device with its tensors, or here. Safe from any thread."""

    def __init__(self, limit_bytes: int = LIMIT_BYTES) -> None:
        self._limit_bytes = limit_bytes
        self._lock = threading.Lock()
        self._loaded: dict[str, Skeleton] = {}
        self._spare: OrderedDict[str, tuple[Skeleton, int]] = OrderedDict()  # with its bytes; oldest first
        self._assembled: OrderedDict[str, Any] = OrderedDict()

    def take(self, part_id: str) -> Skeleton | None:
        """The skeleton of a part that is to be loaded, if there is one and nobody has changed it."""
        with self._lock:
            found, _ = self._spare.pop(part_id, (None, 0))
        return found if found is not None and found.is_as_made() else None

    def loaded(self, part_id: str, skeleton: Skeleton) -> None:
        """It has its tensors, and is on the device until `strip`."""
        with self._lock:
            if skeleton.may_be_kept:
                self._loaded[part_id] = skeleton

    def strip(self, part_id: str) -> list[Any]:
        """The part has left the device, and nobody uses it. Its tensors, whose memory is free once the caller lets go of them."""
        with self._lock:
            skeleton = self._loaded.pop(part_id, None)
            if skeleton is None:
                return []
            tensors = skeleton.given()
            if skeleton.strip():
                self._keep(part_id, skeleton)
            return tensors

    def give_back(self, part_id: str, skeleton: Skeleton) -> None:
        """It was taken for a load that did not come about."""
        with self._lock:
            if skeleton.reset():
                self._keep(part_id, skeleton)

    def assembled(self, name: str) -> Any:
        """What was assembled under this name the last time; None where nothing is kept."""
        with self._lock:
            found = self._assembled.get(name)
            if found is not None:
                self._assembled.move_to_end(name)
            return found

    def keep_assembled(self, name: str, value: Any) -> None:
        with self._lock:
            self._assembled[name] = value
            self._assembled.move_to_end(name)
            while len(self._assembled) > LIMIT_ASSEMBLED:
                self._assembled.popitem(last=False)

    @property
    def host_bytes(self) -> int:
        """About what the waiting ones take of the host's memory."""
        with self._lock:
            return sum(size for _, size in self._spare.values())

    def _keep(self, part_id: str, skeleton: Skeleton) -> None:
        self._spare[part_id] = (skeleton, skeleton.host_bytes)
        while sum(size for _, size in self._spare.values()) > self._limit_bytes:
            self._spare.popitem(last=False)
