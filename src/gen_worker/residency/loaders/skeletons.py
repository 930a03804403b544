"""Keeps skeletons and assembled pipelines for their model's next load, up to a limit."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Container
from typing import Any

from gen_worker.residency.loaders.skeleton import Skeleton

LIMIT_BYTES = 512 << 20  # of host memory, approximately
LIMIT_ASSEMBLED = 16
AHEAD_OF_LIMIT = 0.5  # the share of the limit for skeletons built ahead: those that were in use already are likelier to be needed


class Skeletons:
    """Skeletons by part id. Each one is in exactly one state: used by a load, on the device with its tensors, kept
    here, or being built ahead of its first load. Safe from any thread.
    """

    def __init__(self, limit_bytes: int = LIMIT_BYTES) -> None:
        self._limit_bytes = limit_bytes
        self._lock = threading.Lock()
        self._loaded: dict[str, Skeleton] = {}
        self._spare: OrderedDict[str, tuple[Skeleton, int]] = OrderedDict()  # with its size in bytes; oldest first
        self._assembled: OrderedDict[str, Any] = OrderedDict()
        self._taken: set[str] = set()  # parts that are being loaded
        self._ahead: dict[str, threading.Event] = {}  # being built; the event is set when that ends

    def build_ahead(self, part_id: str, make: Callable[[], Skeleton]) -> bool:
        """Build a part's skeleton before it is needed; False when there is one already or no room for more. Raises what `make` raises."""
        with self._lock:
            known: tuple[Container[str], ...] = (self._loaded, self._spare, self._taken, self._ahead)
            if any(part_id in parts for parts in known) or self._spare_bytes() > self._limit_bytes * AHEAD_OF_LIMIT:
                return False
            ended = self._ahead[part_id] = threading.Event()
        try:
            skeleton = make()
            with self._lock:
                if skeleton.may_be_kept:
                    self._keep(part_id, skeleton)
        finally:
            with self._lock:
                del self._ahead[part_id]
            ended.set()
        return True

    def take(self, part_id: str) -> Skeleton | None:
        """The skeleton of a part to be loaded, if there is one and nobody has changed it. Afterwards call `loaded` or
        `give_back`.

        Waits for a skeleton that is being built.
        """
        with self._lock:
            ahead = self._ahead.get(part_id)
        if ahead is not None:
            ahead.wait()
        with self._lock:
            self._taken.add(part_id)
            found, _ = self._spare.pop(part_id, (None, 0))
        return found if found is not None and (found.is_new or found.is_as_made()) else None

    def loaded(self, part_id: str, skeleton: Skeleton) -> None:
        """The skeleton has its tensors and stays on the device until `strip`."""
        with self._lock:
            self._taken.discard(part_id)
            if skeleton.may_be_kept:
                self._loaded[part_id] = skeleton

    def strip(self, part_id: str) -> list[Any]:
        """The part has left the device and is unused. Returns its tensors; their memory is free once the caller drops them."""
        with self._lock:
            skeleton = self._loaded.pop(part_id, None)
            if skeleton is None:
                return []
            tensors = skeleton.given()
            if skeleton.strip():
                self._keep(part_id, skeleton)
            return tensors

    def give_back(self, part_id: str, skeleton: Skeleton | None) -> None:
        """The load it was taken for did not happen. None: there was no skeleton, and none could be built."""
        with self._lock:
            self._taken.discard(part_id)
            if skeleton is not None and skeleton.reset():
                self._keep(part_id, skeleton)

    def assembled(self, name: str) -> Any:
        """The object last assembled under this name; None when nothing is kept."""
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
        """Estimated host memory of the kept skeletons, in bytes."""
        with self._lock:
            return self._spare_bytes()

    def _spare_bytes(self) -> int:
        return sum(size for _, size in self._spare.values())

    def _keep(self, part_id: str, skeleton: Skeleton) -> None:
        self._spare[part_id] = (skeleton, skeleton.host_bytes)
        while self._spare_bytes() > self._limit_bytes:
            self._spare.popitem(last=False)
