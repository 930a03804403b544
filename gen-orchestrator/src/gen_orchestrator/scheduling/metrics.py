"""Counters and gauges in Prometheus' text format. Few labels: function, release, status, state, tier."""

import time

from gen_orchestrator import __version__
from gen_orchestrator.domain.runs import Run
from gen_orchestrator.scheduling.dispatcher import Dispatcher
from gen_orchestrator.scheduling.pool import Pool

BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
PREFIX = "gen_orchestrator_"


class Histogram:
    """Counts of durations in seconds."""

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS_S) + 1)
        self.total_s = 0.0

    def add(self, seconds: float) -> None:
        for index, bound in enumerate(BUCKETS_S):
            if seconds <= bound:
                self.counts[index] += 1
                break
        else:
            self.counts[-1] += 1
        self.total_s += seconds

    def lines(self, name: str, labels: str) -> list[str]:
        found, sum_so_far = [], 0
        for bound, count in zip((*map(str, BUCKETS_S), "+Inf"), self.counts, strict=True):
            sum_so_far += count
            found.append(f'{name}_bucket{{{labels},le="{bound}"}} {sum_so_far}')
        return [*found, f"{name}_sum{{{labels}}} {self.total_s:.6f}", f"{name}_count{{{labels}}} {sum_so_far}"]


class Metrics:
    """What has happened since the start of this program."""

    def __init__(self) -> None:
        self._started_s = time.time()
        self._runs: dict[tuple[str, str], int] = {}
        self._durations: dict[str, Histogram] = {}
        self._waits: dict[str, Histogram] = {}
        self._routes: dict[str, int] = {}

    def ended(self, run: Run, reason: str) -> None:
        """A run is over. `reason` is that of its last routing."""
        function = f"{run.owner}/{run.endpoint}/{run.function}"
        key = (function, str(run.state))
        self._runs[key] = self._runs.get(key, 0) + 1
        if run.started_at:
            self._durations.setdefault(function, Histogram()).add(max(0.0, run.finished_at - run.started_at))
            self._waits.setdefault(function, Histogram()).add(max(0.0, run.started_at - run.created_at))
        if reason:
            self._routes[reason] = self._routes.get(reason, 0) + 1

    def text(self, dispatcher: Dispatcher, pool: Pool) -> bytes:
        """The page of `/metrics`."""
        out: list[str] = []

        def family(name: str, kind: str, help_text: str, lines: list[str]) -> None:
            out.extend([f"# HELP {PREFIX}{name} {help_text}", f"# TYPE {PREFIX}{name} {kind}", *lines])

        family("build_info", "gauge", "Version of this program.", [f'{PREFIX}build_info{{version="{__version__}"}} 1'])
        runs = [f'{PREFIX}runs_total{{function="{f}",status="{s}"}} {n}' for (f, s), n in sorted(self._runs.items())]
        family("runs_total", "counter", "Runs that ended, by final status.", runs)
        for name, kept, text in (
            ("run_duration_seconds", self._durations, "From the first lease to the end."),
            ("queue_wait_seconds", self._waits, "From acceptance to the first lease."),
        ):
            family(name, "histogram", text, [x for f, h in sorted(kept.items()) for x in h.lines(PREFIX + name, f'function="{f}"')])
        lanes = dispatcher.lanes.all()
        labels = [f'function="{lane.function}",release="{lane.release_id}"' for lane in lanes]
        depth = [f"{PREFIX}queue_depth{{{label}}} {len(lane.queue)}" for lane, label in zip(lanes, labels, strict=True)]
        family("queue_depth", "gauge", "Runs that wait for a worker.", depth)
        busy = [f"{PREFIX}runs_in_progress{{{label}}} {lane.running}" for lane, label in zip(lanes, labels, strict=True)]
        family("runs_in_progress", "gauge", "Runs that are with a worker.", busy)
        states: dict[str, int] = dict.fromkeys(("idle", "busy", "draining", "hung", "away"), 0)
        for worker in pool:
            states[worker.state] += 1
        family("workers", "gauge", "Workers by state.", [f'{PREFIX}workers{{state="{s}"}} {n}' for s, n in states.items()])
        routes = [f'{PREFIX}route_total{{reason="{r}"}} {n}' for r, n in sorted(self._routes.items())]
        family("route_total", "counter", "Runs by why their worker was chosen.", routes)
        return ("\n".join(out) + "\n").encode()
