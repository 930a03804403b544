"""Policies of residency and routing on simulated workers, and the gates of the design as ratios. Seeded: the same table every time.

python benchmarks/residency_simulator.py [--requests 12000] [--seeds 3] [--check]
"""

import argparse
import random
import statistics
import sys
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from residency.routers import Affinity, LeastLoaded, RandomRouter, TimeEstimate
from residency.world import GB, Belady, Done, Simulation, World, make_models, make_requests

from gen_worker.residency.eviction import LeastLoss, LeastRecentlyUsed

MODELS, MODEL_BYTES = 40, 516 * GB
WARM_UP = 1 / 6  # of the requests are not counted


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """One row: who drops, who routes, and under which circumstances."""

    eviction: str = "loss"
    router: Callable[..., Any] = TimeEstimate
    options: dict[str, float] = {}
    free_loads: bool = False
    hot: float = 0.0
    error: float = 0.0


class Row(msgspec.Struct, frozen=True):
    """Seconds, and the share of requests that found their model on the device."""

    p50_s: float
    p90_s: float
    p99_s: float
    model_wait_s: float
    hit: float


def simulate(case: Case, requests_count: int, seeds: Sequence[int]) -> Row:
    """The case over all seeds; percentiles of everything together."""
    done: list[Done] = []
    for seed in seeds:
        dice = random.Random(seed)
        world = World()
        models = make_models(MODELS, MODEL_BYTES, dice)
        requests = make_requests(models, requests_count, world, dice, load=0.6, zipf=0.9, hot=case.hot, error=case.error)
        belady = Belady(requests)
        policy = {"loss": LeastLoss(), "lru": LeastRecentlyUsed()}.get(case.eviction, belady)
        simulation = Simulation(world, models, policy, free_loads=case.free_loads)
        belady.clock = simulation.now
        router = case.router(simulation, random.Random(seed + 1000), **case.options)
        done += simulation.run(requests, router)[round(requests_count * WARM_UP) :]
    latencies = sorted(item.latency_s for item in done)

    def at(share: float) -> float:
        return latencies[min(len(latencies) - 1, int(share * len(latencies)))]

    wait_s = statistics.fmean(item.model_wait_s for item in done)
    return Row(at(0.5), at(0.9), at(0.99), wait_s, statistics.fmean(item.hit for item in done))


LATE = {"heartbeat_s": 10.0}
CASES = {
    "lru + random": Case(eviction="lru", router=RandomRouter),
    "lru + least loaded": Case(eviction="lru", router=LeastLoaded),
    "lru + affinity": Case(eviction="lru", router=Affinity),
    "lru + eta": Case(eviction="lru"),
    "**loss + eta**": Case(),
    "loss + eta + harm": Case(options={"harm": 1.0}),
    "belady + eta": Case(eviction="belady"),
    "oracle, loads free": Case(free_loads=True),
    "hot model: lru + least loaded": Case(eviction="lru", router=LeastLoaded, hot=0.5),
    "hot model: loss + eta": Case(hot=0.5),
    "late and wrong: lru + random": Case(eviction="lru", router=RandomRouter, error=0.3),
    "late and wrong: loss + eta": Case(options=LATE, error=0.3),
    "late and wrong: oracle": Case(free_loads=True, error=0.3),
}


def gates(rows: dict[str, Row]) -> list[tuple[str, float, str, float]]:
    """What the design promises: name, value, `<=` or `>=`, bound."""
    ours, late = rows["**loss + eta**"], rows["late and wrong: loss + eta"]
    lru_random, oracle = rows["lru + random"], rows["oracle, loads free"]
    late_random, late_oracle = rows["late and wrong: lru + random"], rows["late and wrong: oracle"]
    return [
        ("p50 / (lru + random)", ours.p50_s / lru_random.p50_s, "<=", 0.55),
        ("p50 / oracle", ours.p50_s / oracle.p50_s, "<=", 1.15),
        ("p99 / oracle", ours.p99_s / oracle.p99_s, "<=", 2.0),
        ("waited for models / (lru + eta)", ours.model_wait_s / rows["lru + eta"].model_wait_s, "<=", 0.8),
        ("hit rate / greedy Belady", ours.hit / rows["belady + eta"].hit, ">=", 0.93),
        ("herding: p99 / least loaded", rows["hot model: loss + eta"].p99_s / rows["hot model: lru + least loaded"].p99_s, "<=", 2.0),
        ("late and wrong: p50 / (lru + random)", late.p50_s / late_random.p50_s, "<=", 0.52),
        ("late and wrong: p99 / (lru + random)", late.p99_s / late_random.p99_s, "<=", 0.55),
        ("late and wrong: p50 / oracle", late.p50_s / late_oracle.p50_s, "<=", 1.25),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=12_000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--check", action="store_true", help="exit with 1 when a gate is not held")
    options = parser.parse_args()
    rows = {}
    print("| eviction + routing | p50 s | p90 s | p99 s | wait for model s | found on the device |\n|---|---|---|---|---|---|")
    for name, case in CASES.items():
        row = rows[name] = simulate(case, options.requests, range(1, options.seeds + 1))
        print(f"| {name} | {row.p50_s:.2f} | {row.p90_s:.1f} | {row.p99_s:.1f} | {row.model_wait_s:.2f} | {row.hit:.2f} |", flush=True)
    print("\n| gate | value | bound |\n|---|---|---|")
    held = True
    for name, value, relation, bound in gates(rows):
        ok = value <= bound if relation == "<=" else value >= bound
        held = held and ok
        print(f"| {name} | {value:.2f}{'' if ok else ' (not held)'} | {relation} {bound} |")
    return 1 if options.check and not held else 0


if __name__ == "__main__":
    sys.exit(main())
