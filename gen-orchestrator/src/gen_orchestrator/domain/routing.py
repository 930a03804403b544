"""Chooses the worker that will answer a run soonest, by estimated seconds, from workers' reports and from what was assigned to them since.

    seconds = wait for a free slot + bring the models to the device + run

A model in VRAM costs nothing. A model on disk costs its bytes divided by the worker's measured loading rate; a missing one also its bytes
divided by the measured network rate. Assignments count at once, before the next heartbeat, so two runs in one round do not both go to the
same worker. A worker takes no more runs than it has slots. If waiting for a busy worker is faster than loading elsewhere, the run waits,
but never behind more than one run per slot and never longer than the load would take.
"""

from collections.abc import Mapping, Sequence

import msgspec

DEFAULT_MODEL_BYTES = 5_000_000_000
DEFAULT_LOAD_RATE = 1_000_000_000
DEFAULT_NETWORK_RATE = 100_000_000
MAX_CONSIDERED = 8
WAITS_FOR_HOT = "waits_for_hot"  # waiting for a busy worker is faster than loading elsewhere
WAITS_ALONE = "waits_alone"  # it needs a worker to itself (see `losses`), and all are busy


class WorkerView(msgspec.Struct, frozen=True, kw_only=True):
    """A worker as routing sees it. `tiers` maps a model ref to its location (`vram`, `host`, `disk`) and its bytes.

    `slots`: how many runs it takes at once (0: no limit); `running`: how many it has; `free_in_s`: when the next of
    them is expected to end. `expected` runs are already waiting for it. `is_fresh`: it has had no run yet. `coming`:
    models that a run of ours is bringing to its device, with the seconds until they are there; a second run needs no
    load of its own.
    """

    worker_id: str
    slots: int = 0
    running: int = 0
    expected: int = 0
    free_in_s: float = 0.0
    tiers: Mapping[str, tuple[str, int]] = msgspec.field(default_factory=dict)
    load_bytes_per_s: int = 0
    network_bytes_per_s: int = 0
    last_used_s: float = 0.0
    is_fresh: bool = False
    coming: Mapping[str, float] = msgspec.field(default_factory=dict)

    @property
    def has_room(self) -> bool:
        return self.slots <= 0 or self.running < self.slots


class Need(msgspec.Struct, frozen=True, kw_only=True):
    """What a run needs: canonical model refs, and the usual duration of its function (0: unknown)."""

    models: tuple[str, ...] = ()
    run_s: float = 0.0


class Candidate(msgspec.Struct, frozen=True):
    """A worker that was considered, and its estimate in seconds."""

    worker_id: str
    tier: str
    wait_s: float
    model_s: float
    total_s: float


class Choice(msgspec.Struct, frozen=True):
    """`worker_id` is empty when the run should keep waiting. `reason` is for people and metrics."""

    worker_id: str
    reason: str
    considered: tuple[Candidate, ...] = ()


def choose(need: Need, workers: Sequence[WorkerView]) -> Choice:
    """The worker for a run, or the decision to wait. Pure: the same input gives the same choice."""
    if not workers:
        return Choice("", "no_worker")
    if len(workers) == 1:  # the usual case on a laptop: nothing to compare
        only = workers[0]
        candidate = _candidate(need, only)
        return Choice(only.worker_id if only.has_room else "", _why(candidate) if only.has_room else "busy", (candidate,))
    ranked = sorted(((_candidate(need, worker), worker) for worker in workers), key=lambda pair: _order(*pair))
    considered = tuple(candidate for candidate, _ in ranked[:MAX_CONSIDERED])
    best_candidate, best = ranked[0]
    if best.has_room:
        return Choice(best.worker_id, _why(best_candidate), considered)
    with_room = [pair for pair in ranked if pair[1].has_room]
    if not with_room:
        return Choice("", "busy", considered)
    other_candidate, other = with_room[0]
    if best_candidate.total_s <= other_candidate.total_s and best_candidate.wait_s <= other_candidate.model_s:
        return Choice("", WAITS_FOR_HOT, considered)
    return Choice(other.worker_id, _why(other_candidate), considered)


def choose_alone(need: Need, workers: Sequence[WorkerView]) -> Choice:
    """The worker for a run that must have one to itself: a worker without runs, preferably a fresh one; otherwise wait
    for the first worker in `considered`.
    """
    if not workers:
        return Choice("", "no_worker")
    ranked = sorted(
        ((_candidate(need, worker), worker) for worker in workers),
        key=lambda pair: (pair[1].running, not pair[1].is_fresh, pair[1].free_in_s, _order(*pair)),
    )
    considered = tuple(candidate for candidate, _ in ranked[:MAX_CONSIDERED])
    best = ranked[0][1]
    return Choice("", WAITS_ALONE, considered) if best.running else Choice(best.worker_id, "alone", considered)


def _candidate(need: Need, worker: WorkerView) -> Candidate:
    worst = "vram" if need.models else "none"
    model_s = coming_s = 0.0
    for ref in need.models:
        tier, size_bytes = worker.tiers.get(ref, ("cold", 0))
        if tier == "vram":
            continue
        if ref in worker.coming:
            coming_s = max(coming_s, worker.coming[ref])
            worst = max(worst, "coming", key=_TIERS.index)
            continue
        size = size_bytes or DEFAULT_MODEL_BYTES
        model_s += size / (worker.load_bytes_per_s or DEFAULT_LOAD_RATE)
        if tier == "cold":
            model_s += size / (worker.network_bytes_per_s or DEFAULT_NETWORK_RATE)
        worst = max(worst, tier, key=_TIERS.index)
    wait_s = 0.0 if worker.has_room else max(worker.free_in_s, 0.001) + worker.expected * need.run_s / max(worker.slots, 1)
    model_s = max(model_s, coming_s)
    return Candidate(worker.worker_id, worst, round(wait_s, 3), round(model_s, 3), round(wait_s + model_s + need.run_s, 3))


_TIERS = ("none", "vram", "coming", "host", "disk", "cold")
_WORDS = {"none": "no_models", "vram": "hot", "coming": "loading", "host": "warm_host", "disk": "warm", "cold": "cold"}


def _why(candidate: Candidate) -> str:
    return _WORDS[candidate.tier]


def _order(candidate: Candidate, worker: WorkerView) -> tuple[float, bool, bool, float, float, str]:
    # For equal times: prefer the worker that needs no load of its own, then the one with more room, then the one idle
    # for longest, so that load spreads.
    needs_load = _TIERS.index(candidate.tier) > _TIERS.index("coming")
    share = worker.running / worker.slots if worker.slots > 0 else worker.running / 1000
    return (candidate.total_s, not worker.has_room, needs_load, share, worker.last_used_s, worker.worker_id)
