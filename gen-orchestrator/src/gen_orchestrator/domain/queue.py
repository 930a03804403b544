"""Chooses the next run: three priority classes weighted 8:4:1, fair between owners within a class, first come first served within an owner.

    class high   [owner a: r1 r4] [owner b: r2]      credit 8
    class normal [owner a: r3] ...                   credit 4
    class low    ...                                 credit 1

Smooth weighted round robin picks a class among those with work. Deficit round robin picks an owner within it; a run costs the seconds
that its function is expected to take. A run that has waited a minute in a class moves up one class, so nothing starves. All times are
arguments.
"""

from collections import OrderedDict, deque
from collections.abc import Iterator

import msgspec

from gen_orchestrator.domain.runs import PRIORITIES

WEIGHTS = {"high": 8, "normal": 4, "low": 1}
AGE_S = 60.0
QUANTUM_S = 1.0
MAX_BURST = 2.0  # an owner who was idle may be ahead by at most this many quanta


class Waiting(msgspec.Struct, frozen=True):
    """A run in the queue. `cost_s`: the worker time it is expected to take, in seconds; `since_s`: when it arrived."""

    run_id: str
    owner: str
    priority: str
    since_s: float
    cost_s: float = 1.0


class _Class:
    """The owners of one class, in turn."""

    def __init__(self) -> None:
        self.owners: OrderedDict[str, deque[Waiting]] = OrderedDict()
        self.deficits: dict[str, float] = {}
        self.credit = 0.0

    def push(self, item: Waiting, *, front: bool) -> None:
        line = self.owners.get(item.owner)
        if line is None:
            line = self.owners[item.owner] = deque()
            self.deficits[item.owner] = 0.0
        if front:
            line.appendleft(item)
        else:
            line.append(item)

    def peek(self) -> Waiting:
        """The next item. An owner who cannot pay for the first run saves up, and the turn goes to the next owner."""
        quantum_s = QUANTUM_S
        if len(self.owners) > 1:
            cheapest = min(line[0].cost_s - self.deficits[owner] for owner, line in self.owners.items())
            quantum_s = max(QUANTUM_S, cheapest)
            while True:
                owner, line = next(iter(self.owners.items()))
                if self.deficits[owner] >= line[0].cost_s:
                    return line[0]
                self.deficits[owner] = min(self.deficits[owner] + quantum_s, MAX_BURST * quantum_s + line[0].cost_s)
                if self.deficits[owner] >= line[0].cost_s:
                    return line[0]
                self.owners.move_to_end(owner)
        return next(iter(self.owners.values()))[0]

    def take(self, item: Waiting) -> None:
        """Remove an item returned by `peek`, and charge its owner."""
        line = self.owners[item.owner]
        line.popleft()
        self.deficits[item.owner] = max(0.0, self.deficits[item.owner] - item.cost_s)
        if line:
            if self.deficits[item.owner] < line[0].cost_s:
                self.owners.move_to_end(item.owner)
        else:
            del self.owners[item.owner], self.deficits[item.owner]

    def remove(self, item: Waiting) -> None:
        line = self.owners[item.owner]
        line.remove(item)
        if not line:
            del self.owners[item.owner], self.deficits[item.owner]


class FairQueue:
    """Runs that wait for a worker of one kind. Not limited here: `admission` decides which runs may wait."""

    def __init__(self) -> None:
        self._classes = {name: _Class() for name in PRIORITIES}
        self._where: dict[str, tuple[Waiting, str]] = {}  # run id -> item and its current class

    def __len__(self) -> int:
        return len(self._where)

    def __contains__(self, run_id: str) -> bool:
        return run_id in self._where

    def __iter__(self) -> Iterator[Waiting]:
        return (item for item, _ in self._where.values())

    def push(self, item: Waiting, *, front: bool = False) -> None:
        """Add a run. `front`: it was taken before, and returns through no fault of its own."""
        self._classes[item.priority].push(item, front=front)
        self._where[item.run_id] = (item, item.priority)

    def peek(self, now_s: float) -> Waiting | None:
        """The run whose turn it is; it stays until `take` or `remove`."""
        if not self._where:
            return None
        self._age(now_s)
        return self._turn().peek()

    def take(self, item: Waiting) -> None:
        """Remove the run returned by `peek`, and charge its class and owner for it."""
        _, name = self._where.pop(item.run_id)
        working = {other: kept for other, kept in self._classes.items() if kept.owners}
        total = sum(WEIGHTS[other] for other in working)
        for other, kept in working.items():
            kept.credit += WEIGHTS[other]
        self._classes[name].credit -= total
        self._classes[name].take(item)
        for kept in self._classes.values():
            if not kept.owners:
                kept.credit = 0.0

    def remove(self, run_id: str) -> bool:
        """Remove a run; False when it is not in the queue."""
        found = self._where.pop(run_id, None)
        if found is None:
            return False
        self._classes[found[1]].remove(found[0])
        return True

    def _turn(self) -> _Class:
        working = [(kept.credit + WEIGHTS[name], -index, name) for index, (name, kept) in enumerate(self._classes.items()) if kept.owners]
        return self._classes[max(working)[2]]

    def _age(self, now_s: float) -> None:
        """Heads of queues that have waited long move up one class for each minute. Only heads, because an owner's later
        runs are younger.
        """
        for lower, upper in (("normal", "high"), ("low", "normal")):
            for line in list(self._classes[lower].owners.values()):
                item = line[0]
                if now_s - item.since_s < AGE_S:
                    continue
                steps = PRIORITIES.index(item.priority) - PRIORITIES.index(upper)
                if now_s - item.since_s >= AGE_S * steps:
                    self._classes[lower].remove(item)
                    self._classes[upper].push(item, front=False)
                    self._where[item.run_id] = (item, upper)
