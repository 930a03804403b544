"""The connected workers of each release, what they run, and the view of them that routing uses.

    joined --(stream ends)--> away --(same process registers)--> joined
                               |--(lease over, or the process is known dead)--> gone: its runs are taken back

A worker keeps its runs while it is away, so a reconnect costs nothing. Its last report and later assignments both count.
"""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Protocol

from gen_orchestrator.domain.losses import Loss, is_kept_apart
from gen_orchestrator.domain.routing import WorkerView
from gen_orchestrator.scheduling.heard import checked_resources
from gen_worker.wire.messages import CloseRealtime, InterruptRun, Registration, Resources, RunCommand, Single
from gen_worker.wire.scheduler_session import WorkerMemory

if TYPE_CHECKING:
    from gen_orchestrator.scheduling.open_run import OpenRun

_NOTHING: dict[str, float] = {}
MAX_IN_FLIGHT = 256  # for a worker that names no limit of its own


class WorkerLink(Protocol):
    """The stream of a connected worker."""

    @property
    def counts_frames(self) -> bool: ...

    @property
    def counts_frames_back(self) -> bool: ...

    def start(self, command: RunCommand) -> None: ...

    def interrupt(self, run_id: str) -> None: ...

    def send(self, message: Single) -> None: ...

    def close(self, code: str, details: str) -> None: ...


class Worker:
    """One worker, by the id in its token."""

    def __init__(self, worker_id: str, owner: str, release_id: str) -> None:
        self.worker_id = worker_id
        self.owner = owner
        self.release_id = release_id
        self.instance_id = ""
        self.link: WorkerLink | None = None
        self.memory = WorkerMemory()
        self.resources = Resources()
        self.runs: dict[str, OpenRun] = {}
        self.of_function: dict[str, int] = {}
        self.zombies: set[str] = set()  # runs that are over here but that it did not stop
        self.kept_for = ""  # the run that it has, or waits for, alone; it gets no other
        self.given = 0  # number of runs since it joined
        self.doubtful: set[str] = set()  # of a plain worker: runs that it may have lost (plain_workers)
        self.doubtful_since_s = 0.0
        self.draining = False
        self.token_until = float("inf")  # unix seconds
        self.token_life_s = 0.0
        self.joined_s = 0.0
        self.heard_s = 0.0
        self.away_since_s = 0.0
        self.last_used_s = 0.0
        self.functions: frozenset[str] = frozenset()
        self._tiers: dict[str, tuple[str, int]] = {}
        self._coming: dict[str, float] = {}  # models that a run of ours brings to its device, and when they should be there

    @property
    def slots(self) -> int:
        return min(self.resources.max_concurrency or MAX_IN_FLIGHT, MAX_IN_FLIGHT)

    @property
    def state(self) -> str:
        """`busy`, `idle`, `draining`, `hung` or `away`, for people and metrics."""
        if self.link is None:
            return "away"
        if self.zombies:
            return "hung"
        return "draining" if self.draining else "busy" if self.runs else "idle"

    def heard(self, registration: Registration, now_s: float) -> None:
        """Process a worker's report about itself."""
        self.heard_s = now_s
        resources = self.resources = checked_resources(registration.resources)
        self.functions = frozenset(resources.available_functions)
        tiers = dict.fromkeys(resources.disk_models, ("disk", 0))
        tiers |= dict.fromkeys(resources.vram_models, ("vram", 0))
        tiers |= {tier.model_id: (tier.tier, tier.size_bytes) for tier in resources.model_tiers}
        self._tiers = tiers
        if self._coming:
            self._coming = {ref: until_s for ref, until_s in self._coming.items() if until_s > now_s}

    def models_by_tier(self) -> dict[str, list[str]]:
        """Its models by their best location: `vram`, `host` or `disk`."""
        found: dict[str, list[str]] = {"vram": [], "host": [], "disk": []}
        for ref, (tier, _) in sorted(self._tiers.items()):
            found.setdefault(tier, []).append(ref)
        return found

    def takes(self, function: str, run_id: str = "") -> bool:
        """Whether the worker may get another run of this function (this run) now; `choose` checks its slots."""
        if self.link is None or self.draining or self.zombies or function not in self.functions:
            return False
        if self.kept_for and self.kept_for != run_id:
            return False
        limit = self.resources.function_concurrency.get(function, 0)
        return limit <= 0 or self.of_function.get(function, 0) < limit

    @property
    def waits_for_its_run(self) -> bool:
        """Whether it is kept free for a coming run."""
        return bool(self.kept_for) and self.kept_for not in self.runs and self.link is not None and not (self.draining or self.zombies)

    def loss(self) -> Loss:
        """What the worker's loss would mean for the runs sent to it. A run whose command has not left is not affected."""
        sent = sum(1 for run in self.runs.values() if run.is_sent)
        if sent > 1:
            return Loss.SHARED
        return Loss.FRESH if self.given == 1 else Loss.ALONE

    def assign(self, run: "OpenRun", now_s: float) -> None:
        """From now on the run belongs to this worker."""
        self.runs[run.id] = run
        self.given += 1
        if is_kept_apart(run.run):
            self.kept_for = run.id
        self.of_function[run.function] = self.of_function.get(run.function, 0) + 1
        self.last_used_s = now_s

    def expect(self, models: tuple[str, ...], model_s: float, now_s: float) -> None:
        """A run given to it brings these models in about this many seconds; known before the next heartbeat reports it."""
        for ref in models:
            if self._tiers.get(ref, ("", 0))[0] != "vram":
                self._coming.setdefault(ref, now_s + model_s)

    def release(self, run: "OpenRun") -> None:
        """The run is over here."""
        if self.runs.pop(run.id, None) is not None:
            self.of_function[run.function] -= 1
            if self.kept_for == run.id:
                self.kept_for = ""
            # Its command must not be sent again on the next stream, and a late result is dropped.
            self.memory.runs.pop(run.id, None)
            self.memory.interrupted.discard(run.id)

    def view(self, now_s: float) -> WorkerView:
        running = len(self.runs)
        free_in_s = 0.0
        if running >= self.slots:
            free_in_s = max(0.0, min((run.expected_end_s for run in self.runs.values()), default=now_s) - now_s)
        return WorkerView(
            worker_id=self.worker_id,
            slots=self.slots,
            running=running,
            free_in_s=free_in_s,
            tiers=self._tiers,
            load_bytes_per_s=self.resources.load_bytes_per_s,
            network_bytes_per_s=self.resources.network_bytes_per_s,
            last_used_s=self.last_used_s,
            is_fresh=self.given == 0,
            coming={ref: until_s - now_s for ref, until_s in self._coming.items() if until_s > now_s} if self._coming else _NOTHING,
        )

    def interrupt(self, run_id: str) -> None:
        """Ask it to stop a run, whether we or an earlier leader gave it that run."""
        if self.link is not None:
            run = self.runs.get(run_id)
            if run is not None and run.session is not None and not self.link.counts_frames_back:
                self.leave(run_id)  # it has no other way to end a session
            elif run is not None and run.session is None:
                self.link.interrupt(run_id)
            else:
                self.link.send(InterruptRun(run_id))

    def leave(self, session_id: str) -> None:
        """Tell it that a session's client has left."""
        if self.link is not None:
            self.link.send(CloseRealtime(session_id, "client_left"))


class Pool:
    """All known workers, by id and by release."""

    def __init__(self) -> None:
        self._workers: dict[str, Worker] = {}
        self._of_release: dict[str, dict[str, Worker]] = {}
        self._joined: list[Callable[[Worker], None]] = []

    def when_joined(self, callback: Callable[[Worker], None]) -> None:
        """Call this for each worker that joins, however soon it leaves again."""
        self._joined.append(callback)

    def __iter__(self) -> Iterator[Worker]:
        return iter(list(self._workers.values()))

    def __len__(self) -> int:
        return len(self._workers)

    def get(self, worker_id: str) -> Worker | None:
        return self._workers.get(worker_id)

    def add(self, worker: Worker) -> None:
        self._workers[worker.worker_id] = worker
        self._of_release.setdefault(worker.release_id, {})[worker.worker_id] = worker
        for callback in self._joined:
            callback(worker)

    def remove(self, worker: Worker) -> None:
        if self._workers.get(worker.worker_id) is worker:
            del self._workers[worker.worker_id]
            of_release = self._of_release[worker.release_id]
            del of_release[worker.worker_id]
            if not of_release:
                del self._of_release[worker.release_id]

    def has_room(self, release_id: str, function: str) -> bool:
        """Whether a worker of this release would take a run of this function now."""
        workers = self._of_release.get(release_id, {}).values()
        return any(worker.takes(function) and len(worker.runs) < worker.slots for worker in workers)

    def of_release(self, release_id: str) -> list[Worker]:
        return list(self._of_release.get(release_id, {}).values())
