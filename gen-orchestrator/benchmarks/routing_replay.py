"""Other ways to route what was recorded: `cozyctl up --record FILE`, then `python gen-orchestrator/benchmarks/routing_replay.py FILE [--seed 1]`.

The trace gives arrivals, what each run needs, how long it computed, and the workers with their models and rates. Everything else follows from the
policy: who gets what, what is loaded and from where, what is dropped (least recently used), how long runs wait. Virtual time; the same file and seed
give the same table. `as recorded` is what really happened, with all that a model of it leaves out.
"""

import argparse
import heapq
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from random import Random
from zlib import crc32

import msgspec

from gen_orchestrator.domain.routing import DEFAULT_LOAD_RATE, DEFAULT_MODEL_BYTES, DEFAULT_NETWORK_RATE, Choice, Need, WorkerView, choose
from gen_orchestrator.scheduling.trace import Ended, Entry, Given, WorkerGone, WorkerSeen, read_trace

Policy = Callable[[Need, Sequence[WorkerView]], Choice]
WAITS = "waits"


class Arrival(msgspec.Struct, frozen=True):
    """One run. `run_s`: what it computes, without bringing models."""

    at: float
    run_id: str
    release_id: str
    function: str
    need: Need
    run_s: float


class Outcome(msgspec.Struct, frozen=True):
    """Seconds from acceptance to result; loads that came over the network, all loads, and their bytes."""

    p50_s: float
    p99_s: float
    cold: int
    loads: int
    moved_bytes: int


class _Worker:
    def __init__(self, seen: WorkerSeen) -> None:
        self.seen = seen
        self.tiers = dict(seen.tiers)
        self.used_s: dict[str, float] = {}
        self.coming: dict[str, float] = {}
        self.ends_s: list[float] = []
        self.last_used_s = 0.0

    def view(self, now_s: float) -> WorkerView:
        full = self.seen.slots > 0 and len(self.ends_s) >= self.seen.slots
        return WorkerView(
            worker_id=self.seen.worker_id,
            slots=self.seen.slots,
            running=len(self.ends_s),
            free_in_s=max(0.0, min(self.ends_s) - now_s) if full else 0.0,
            tiers=self.tiers,
            load_bytes_per_s=self.seen.load_bytes_per_s,
            network_bytes_per_s=self.seen.network_bytes_per_s,
            last_used_s=self.last_used_s,
            coming={ref: at - now_s for ref, at in self.coming.items() if at > now_s},
        )

    def bring(self, refs: Sequence[str], sizes: dict[str, int], now_s: float) -> tuple[float, int, int, int]:
        """Have these models on the device: seconds until they are there, cold loads, loads, bytes."""
        model_s = coming_s = 0.0
        cold = loads = moved = 0
        for ref in refs:
            tier, known = self.tiers.get(ref, ("cold", 0))
            self.used_s[ref] = now_s
            if tier == "vram":
                coming_s = max(coming_s, self.coming.get(ref, 0.0) - now_s)
                continue
            size = known or sizes.get(ref, 0) or DEFAULT_MODEL_BYTES
            model_s += size / (self.seen.load_bytes_per_s or DEFAULT_LOAD_RATE)
            if tier == "cold":
                model_s += size / (self.seen.network_bytes_per_s or DEFAULT_NETWORK_RATE)
                cold += 1
            loads += 1
            moved += size
            self.tiers[ref] = ("vram", size)
            self.coming[ref] = now_s + model_s
        self._make_room(frozenset(refs))
        return max(model_s, coming_s), cold, loads, moved

    def _make_room(self, keep: frozenset[str]) -> None:
        if not self.seen.device_bytes:
            return
        held = {ref: size for ref, (tier, size) in self.tiers.items() if tier == "vram"}
        for ref in sorted(held, key=lambda ref: self.used_s.get(ref, 0.0)):
            if sum(held.values()) <= self.seen.device_bytes:
                return
            if ref not in keep:
                self.tiers[ref] = ("disk", held.pop(ref))


def arrivals(entries: Iterable[Entry]) -> list[Arrival]:
    """The runs of a trace, each once, by when they were accepted; of several attempts the last counts. Runs without an end are left out."""
    given: dict[str, Given] = {}
    first: dict[str, float] = {}
    found: dict[str, Arrival] = {}
    for entry in entries:
        if isinstance(entry, Given):
            given[entry.run_id] = entry
            first.setdefault(entry.run_id, entry.at - entry.waited_s)
        elif isinstance(entry, Ended) and (start := given.get(entry.run_id)) is not None:
            run_s = max(0.0, entry.took_s - entry.models_s)
            found[entry.run_id] = Arrival(first[entry.run_id], entry.run_id, start.release_id, start.function, start.need, run_s)
    return sorted(found.values(), key=lambda arrival: arrival.at)


def as_recorded(entries: Sequence[Entry]) -> Outcome:
    """What happened, as far as the trace tells: of loads it knows those that the choice foresaw."""
    began = {arrival.run_id: arrival.at for arrival in arrivals(entries)}
    ends = {entry.run_id: entry.at for entry in entries if isinstance(entry, Ended)}
    cold = loads = moved = 0
    for entry in entries:
        if isinstance(entry, Given) and entry.run_id in began:
            view = next((view for view in entry.workers if view.worker_id == entry.worker_id), None)
            for ref in entry.need.models if view is not None else ():
                assert view is not None
                tier, size = view.tiers.get(ref, ("cold", 0))
                if tier != "vram" and ref not in view.coming:
                    cold, loads, moved = cold + (tier == "cold"), loads + 1, moved + (size or DEFAULT_MODEL_BYTES)
    times = sorted(ends[run_id] - at for run_id, at in began.items())
    return Outcome(_at(times, 0.5), _at(times, 0.99), cold, loads, moved)


def replay(entries: Sequence[Entry], policy: Policy) -> Outcome:
    """The trace through another policy. Pure: neither clock nor file."""
    due = arrivals(entries)
    sizes = {ref: size for entry in entries if isinstance(entry, WorkerSeen) for ref, (_, size) in entry.tiers.items() if size}
    workers: dict[str, _Worker] = {}
    waiting: list[Arrival] = []
    times: list[float] = []
    totals = [0, 0, 0]
    events: list[tuple[float, int, int, object]] = []  # when, what first, which first, what
    number = 0

    def add(at: float, rank: int, what: object) -> None:
        nonlocal number
        number += 1
        heapq.heappush(events, (at, rank, number, what))

    joined: set[str] = set()
    for entry in entries:
        if isinstance(entry, WorkerSeen) and entry.worker_id not in joined:  # what it comes to hold later is the policy's doing
            joined.add(entry.worker_id)
            add(entry.at, 0, entry)
        elif isinstance(entry, WorkerGone):
            joined.discard(entry.worker_id)
            add(entry.at, 2, entry)
    for arrival in due:
        add(arrival.at, 1, arrival)

    def place(now_s: float) -> None:
        left: list[Arrival] = []
        full: set[tuple[str, str]] = set()  # a lane whose first run found nobody: the others are behind it
        for arrival in waiting:
            lane = (arrival.release_id, arrival.function)
            choice = Choice("", WAITS)
            if lane not in full:
                fit = [each for each in workers.values() if each.seen.release_id == lane[0] and lane[1] in each.seen.functions]
                choice = policy(arrival.need, [each.view(now_s) for each in fit])
            if not choice.worker_id:
                left.append(arrival)
                if choice.reason in ("busy", "no_worker"):
                    full.add(lane)
                continue
            worker = workers[choice.worker_id]
            model_s, *moved = worker.bring(arrival.need.models, sizes, now_s)
            for place_, value in enumerate(moved):
                totals[place_] += value
            end_s = now_s + model_s + arrival.run_s
            worker.ends_s.append(end_s)
            worker.last_used_s = now_s
            times.append(end_s - arrival.at)
            add(end_s, -1, (choice.worker_id, end_s))
        waiting[:] = left

    while events:
        now_s, _, _, what = heapq.heappop(events)
        if isinstance(what, WorkerSeen):
            workers[what.worker_id] = _Worker(what)
        elif isinstance(what, WorkerGone):
            workers.pop(what.worker_id, None)
        elif isinstance(what, Arrival):
            waiting.append(what)
        elif isinstance(what, tuple) and (worker := workers.get(what[0])) is not None and what[1] in worker.ends_s:
            worker.ends_s.remove(what[1])
        if waiting:
            place(now_s)
    times.sort()
    return Outcome(_at(times, 0.5), _at(times, 0.99), *totals)


def _at(times: Sequence[float], share: float) -> float:
    return times[min(len(times) - 1, int(share * len(times)))] if times else float("nan")


# ---- policies


def at_random(seed: int) -> Policy:
    """Any worker with room."""
    random = Random(seed)

    def policy(need: Need, workers: Sequence[WorkerView]) -> Choice:
        free = [worker for worker in workers if worker.has_room]
        return Choice(random.choice(free).worker_id, "random") if free else Choice("", "busy")

    return policy


def least_loaded(need: Need, workers: Sequence[WorkerView]) -> Choice:
    """The one with the fewest runs, whatever it holds."""
    free = [worker for worker in workers if worker.has_room]
    if not free:
        return Choice("", "busy")
    return Choice(min(free, key=lambda worker: (worker.running, worker.last_used_s, worker.worker_id)).worker_id, "least_loaded")


def by_model(need: Need, workers: Sequence[WorkerView]) -> Choice:
    """Always the same worker for a model, however busy it is."""
    if not workers:
        return Choice("", "no_worker")
    if not need.models:
        return least_loaded(need, workers)
    home = max(workers, key=lambda worker: crc32(f"{worker.worker_id} {need.models[0]}".encode()))
    return Choice(home.worker_id, "home") if home.has_room else Choice("", WAITS)


def policies(seed: int) -> dict[str, Policy]:
    return {"seconds to result (ours)": choose, "least loaded": least_loaded, "by model": by_model, "random": at_random(seed)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    try:
        entries = list(read_trace(args.file))
    except (OSError, ValueError) as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 1
    runs = arrivals(entries)
    if not runs:
        print(f"error: {args.file} holds no run that has ended", file=sys.stderr)
        return 1
    print(f"{len(runs)} runs in {max(0.0, runs[-1].at - runs[0].at):.1f} s\n")
    print("| policy | p50 s to result | p99 s | cold loads | loads | GB moved |\n|---|---|---|---|---|---|")
    rows = {"as recorded": as_recorded(entries)} | {name: replay(entries, policy) for name, policy in policies(args.seed).items()}
    for name, row in rows.items():
        print(f"| {name} | {row.p50_s:.3f} | {row.p99_s:.3f} | {row.cold} | {row.loads} | {row.moved_bytes / 1e9:.1f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
