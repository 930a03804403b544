"""Counters and gauges in Prometheus' text format. Few labels: function, release, status, state, tier."""

import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Mapping

import msgspec

from gen_orchestrator import __version__
from gen_orchestrator.domain.runs import Run
from gen_orchestrator.hub.disk_report import DiskReport
from gen_orchestrator.scheduling.dispatcher import Dispatcher
from gen_orchestrator.scheduling.heard import downloaded_bytes, metrics_in
from gen_orchestrator.scheduling.pool import Pool

BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
PREFIX = "gen_orchestrator_"


_SOURCES = {"vram": "vram", "host": "ram", "disk": "disk", "cold": "remote"}


class _Considered(msgspec.Struct):
    worker_id: str = ""
    tier: str = ""


class _Routing(msgspec.Struct):
    reason: str = ""
    considered: tuple[_Considered, ...] = ()


_routing = msgspec.json.Decoder(_Routing).decode


class Of(msgspec.Struct, frozen=True):
    """Whose figures, and the ids of this owner's releases."""

    owner: str
    releases: frozenset[str]


class Histogram:
    """Counts of durations in seconds."""

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS_S) + 1)
        self.total_s = 0.0

    def add(self, seconds: float) -> None:
        self.counts[bisect_left(BUCKETS_S, seconds)] += 1
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
        self._durations: defaultdict[str, Histogram] = defaultdict(Histogram)
        self._waits: defaultdict[str, Histogram] = defaultdict(Histogram)
        self._routes: dict[tuple[str, str], int] = {}
        self._first_outputs: defaultdict[str, Histogram] = defaultdict(Histogram)
        self._loads: defaultdict[str, Histogram] = defaultdict(Histogram)
        self._out_of_memory = 0
        self._downloaded_bytes = 0
        self._webhooks: Mapping[str, int] = {}
        self._frames, self._frame_bytes = {"in": 0, "out": 0}, {"in": 0, "out": 0}

    def ended(self, run: Run, first_output_at: float) -> None:
        """A run has ended. `first_output_at`: when a stream produced its first item, 0 for none."""
        function = f"{run.owner}/{run.endpoint}/{run.function}"
        key = (function, str(run.state))
        self._runs[key] = self._runs.get(key, 0) + 1
        if run.started_at:
            self._durations[function].add(max(0.0, run.finished_at - run.started_at))
            self._waits[function].add(max(0.0, run.started_at - run.created_at))
        if first_output_at:
            self._first_outputs[function].add(max(0.0, first_output_at - run.created_at))
        if run.error is not None and run.error.code == "out_of_memory":
            self._out_of_memory += 1
        routing = _routing(run.routing) if run.routing else _Routing()
        tier = next((each.tier for each in routing.considered if each.worker_id == run.worker_id), "")
        if routing.reason:
            self._routes[routing.reason, tier] = self._routes.get((routing.reason, tier), 0) + 1
        metrics = metrics_in(run.metrics)
        self._downloaded_bytes += downloaded_bytes(metrics)
        if (session := metrics.session) is not None:
            self._frames["in"] += session.frames_in
            self._frames["out"] += session.frames_out
            self._frame_bytes["in"] += session.bytes_in
            self._frame_bytes["out"] += session.bytes_out
        load_ms = metrics.gpu_load_ms
        if load_ms and tier in _SOURCES:
            self._loads[_SOURCES[tier]].add(load_ms / 1000)

    def follow_webhooks(self, outcomes: Mapping[str, int]) -> None:
        """A leadership begins: its webhook requests are counted there, by result."""
        self._webhooks = outcomes

    def text(self, dispatcher: Dispatcher, pool: Pool, disk: DiskReport | None = None, of: Of | None = None) -> bytes:
        """The page of `/metrics`. `disk` may be some minutes old. With `of`, only what is counted by that owner's functions, releases
        and workers: any other figure tells of everybody's."""
        out: list[str] = []

        def family(name: str, kind: str, help_text: str, lines: list[str], mixed: bool = True) -> None:
            if of is None or not mixed:  # mixed, unless said otherwise, so that a new figure is not told to all
                out.extend([f"# HELP {PREFIX}{name} {help_text}", f"# TYPE {PREFIX}{name} {kind}", *lines])

        def ours(function: str) -> bool:
            return of is None or function.startswith(f"{of.owner}/")

        family("build_info", "gauge", "Version of this program.", [f'{PREFIX}build_info{{version="{__version__}"}} 1'], mixed=False)
        runs = [f'{PREFIX}runs_total{{function="{f}",status="{s}"}} {n}' for (f, s), n in sorted(self._runs.items()) if ours(f)]
        family("runs_total", "counter", "Runs that ended, by final status.", runs, mixed=False)
        for name, kept, text in (
            ("run_duration_seconds", self._durations, "From the first lease to the end."),
            ("queue_wait_seconds", self._waits, "From acceptance to the first lease."),
        ):
            lines = [x for f, h in sorted(kept.items()) if ours(f) for x in h.lines(PREFIX + name, f'function="{f}"')]
            family(name, "histogram", text, lines, mixed=False)
        lanes = [lane for lane in dispatcher.lanes.all() if of is None or lane.release_id in of.releases]
        labels = [f'function="{lane.function}",release="{lane.release_id}"' for lane in lanes]
        depth = [f"{PREFIX}queue_depth{{{label}}} {len(lane.queue)}" for lane, label in zip(lanes, labels, strict=True)]
        family("queue_depth", "gauge", "Runs that wait for a worker.", depth, mixed=False)
        busy = [f"{PREFIX}runs_in_progress{{{label}}} {lane.running}" for lane, label in zip(lanes, labels, strict=True)]
        family("runs_in_progress", "gauge", "Runs that are with a worker.", busy, mixed=False)
        open_now = [each for each in dispatcher.open.values() if each.session is not None and (of is None or each.run.owner == of.owner)]
        text = "Realtime sessions that are open or wait for a worker."
        family("sessions_open", "gauge", text, [f"{PREFIX}sessions_open {len(open_now)}"], mixed=False)
        for name, counted in (("session_frames_total", self._frames), ("session_bytes_total", self._frame_bytes)):
            lines = [f'{PREFIX}{name}{{direction="{direction}"}} {n}' for direction, n in counted.items()]
            family(name, "counter", "Of sessions that ended: from clients (in) and to them (out).", lines)
        states: dict[str, int] = dict.fromkeys(("idle", "busy", "draining", "hung", "away"), 0)
        workers = [worker for worker in pool if of is None or worker.owner == of.owner]
        for worker in workers:
            states[worker.state] += 1
        family("workers", "gauge", "Workers by state.", [f'{PREFIX}workers{{state="{s}"}} {n}' for s, n in states.items()], mixed=False)
        routes = [f'{PREFIX}route_total{{reason="{r}",tier="{t}"}} {n}' for (r, t), n in sorted(self._routes.items())]
        family("route_total", "counter", "Runs by why their worker was chosen, and where their models were.", routes)
        hits = dict.fromkeys(("vram", "ram", "disk"), 0)
        for (_, tier), count in self._routes.items():
            if _SOURCES.get(tier) in hits:
                hits[_SOURCES[tier]] += count
        found = [f'{PREFIX}model_cache_hits_total{{tier="{tier}"}} {count}' for tier, count in hits.items()]
        family("model_cache_hits_total", "counter", "Runs whose worker had their models, by where.", found)
        text = "Bytes of models that runs had to wait for."
        family("model_download_bytes_total", "counter", text, [f"{PREFIX}model_download_bytes_total {self._downloaded_bytes}"])
        name = "time_to_first_output_seconds"
        first = [x for f, h in sorted(self._first_outputs.items()) if ours(f) for x in h.lines(PREFIX + name, f'function="{f}"')]
        family(name, "histogram", "From acceptance to a stream's first item.", first, mixed=False)
        name = "model_load_seconds"
        loads = [x for s, h in sorted(self._loads.items()) for x in h.lines(PREFIX + name, f'source="{s}"')]
        family(name, "histogram", "Time that runs waited for models, by where those were.", loads)
        family("oom_total", "counter", "Runs that ended out of memory.", [f'{PREFIX}oom_total{{outcome="failed"}} {self._out_of_memory}'])
        used = sum(worker.resources.gpu_memory_used_bytes for worker in workers)
        family("vram_used_bytes", "gauge", "Device memory in use, of all workers.", [f"{PREFIX}vram_used_bytes {used}"])
        tiers: dict[str, int] = {}
        for worker in pool:
            for each in worker.resources.model_tiers:
                tiers[each.tier] = tiers.get(each.tier, 0) + each.size_bytes
        held = [f'{PREFIX}model_bytes{{tier="{_escaped(tier)}"}} {size}' for tier, size in sorted(tiers.items())]
        family("model_bytes", "gauge", "Bytes of models that workers hold, by tier.", held)
        text = "Bytes of models on disks of workers."
        family("disk_cache_bytes", "gauge", text, [f"{PREFIX}disk_cache_bytes {tiers.get('disk', 0)}"])
        if disk is not None:
            kinds = [f'{PREFIX}data_folder_bytes{{kind="{kind}"}} {size}' for kind, size in disk.bytes.items()]
            family("data_folder_bytes", "gauge", "Bytes of the data folder, by kind.", kinds)
            free = [f"{PREFIX}data_folder_free_bytes {disk.free_bytes}"]
            family("data_folder_free_bytes", "gauge", "Bytes that are free on the data folder's disk.", free)
        told = [f'{PREFIX}webhook_deliveries_total{{outcome="{outcome}"}} {n}' for outcome, n in sorted(self._webhooks.items())]
        family("webhook_deliveries_total", "counter", "Webhook requests by what came of them.", told)
        return ("\n".join(out) + "\n").encode()


def _escaped(text: str) -> str:
    """A label's value. It comes from a worker, so it may contain anything."""
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
