"""Keeps the right number of workers running: starts, drains and replaces them.

    wanted (domain/scaling) against what runs, for each release that is in use:
      too few:  start one, unless it crashed just now and its back-off is not over
      too many: drain the least recently used idle worker; it exits after its runs
      ended:    its runs return to the queue at once, and the next round decides what follows
      sick:     (scheduling/fitness) it gets no more runs and is drained, and the next round starts another
      hung:     its process group is killed at once, and the runs of others on it go back to the queue

One round per second, and immediately when something changes. Workers that joined by hand count, but are not touched. If a release's workers
crash at startup, the release says so with their last log lines.
"""

import asyncio
import secrets
from collections.abc import Collection, Mapping

import msgspec

from gen_orchestrator.auth.worker_tokens import WorkerClaims, WorkerTokens
from gen_orchestrator.domain.scaling import wanted_workers
from gen_orchestrator.fleet.base import Fleet, Secrets, WorkerSpec
from gen_orchestrator.fleet.demands import Demands
from gen_orchestrator.fleet.devices import least_used
from gen_orchestrator.fleet.failures import how_it_ended, why_not_started
from gen_orchestrator.fleet.launch import Launch
from gen_orchestrator.fleet.start_failures import StartFailures
from gen_orchestrator.scheduling.dispatcher import Dispatcher
from gen_orchestrator.scheduling.fitness import Fitness
from gen_orchestrator.scheduling.gateway import Gateway
from gen_orchestrator.scheduling.lane import Lane
from gen_orchestrator.scheduling.pool import Pool, Worker
from gen_worker.clock import Clock
from gen_worker.log import Log

ROUND_S = 1.0
START_S = 300.0  # time from the start of a process to its registration
DRAIN_S = 120.0
FLUSH_S = 10.0  # after the drain: time for cancelled runs to end and results to be delivered


class _Child(msgspec.Struct):
    release_id: str
    started_s: float
    gpu: str
    worker: Worker | None = None  # once it has joined; kept, because it may leave the pool before its process ends
    stopping: bool = False
    leaves_by_s: float = 0.0  # until then its runs may continue, and then it is told to end; 0: it was told, or may stay


class Keeper:
    """For one leader and one fleet. `news` is set by anyone with a reason to check now; `scheduler_addr` is where
    workers connect. Workers that are told to end may continue their runs for `drain_s`. `gpus` are the devices that
    workers are spread over.
    """

    def __init__(
        self,
        fleet: Fleet,
        gateway: Gateway,
        pool: Pool,
        dispatcher: Dispatcher,
        fitness: Fitness,
        tokens: WorkerTokens,
        clock: Clock,
        log: Log,
        *,
        secrets_of: Secrets,
        scheduler_addr: str,
        drain_s: float,
        gpus: tuple[str, ...],
        news: asyncio.Event,
    ) -> None:
        self._fleet = fleet
        self._gateway = gateway
        self._pool = pool
        pool.when_joined(self._note_joined)
        self._dispatcher = dispatcher
        self._fitness = fitness
        self._tokens = tokens
        self._secrets = secrets_of
        self._clock = clock
        self._log = log
        self._launches: dict[str, Launch] = {}
        self._children: dict[str, _Child] = {}
        self._demands = Demands(clock, len(gpus))
        self._start_failures = StartFailures()
        self._gpus = gpus
        self._scheduler_addr = scheduler_addr
        self._drain_s = drain_s
        self._news = news
        self._task: asyncio.Task[None] | None = None
        self._is_paused = False
        self._heir: Keeper | None = None  # the keeper of this node's next leadership
        self._stopping: set[asyncio.Task[None]] = set()

    @property
    def failures(self) -> Mapping[str, str]:
        """Why releases have no worker, by release."""
        return self._start_failures.reasons

    def forget_failure(self, release_id: str) -> None:
        """Forget earlier failures, because a new try begins."""
        self._start_failures.forget(release_id)

    def cannot_start(self, release_id: str, why: str) -> None:
        """A release that could not even be started: waiting runs, `cozyctl ps` and the screen show why."""
        self._start_failures.failed(release_id, why, self._clock.now_s())

    def offer(self, launch: Launch) -> None:
        """This release can be started here when runs need it."""
        self._launches[launch.release_id] = launch
        self.poke()

    def keep_ready(self, release_id: str) -> None:
        """Keep one worker ready before the first run comes; as an idle worker it stays for its `idle_s`."""
        if self._demands.keep_ready(release_id):
            self.poke()

    def wake(self, release_id: str) -> None:
        """Something would use a worker of a release that is kept ready: treat it as if a run had been there now."""
        if self._demands.wake(release_id):
            self.poke()

    def launch_of(self, release_id: str) -> Launch | None:
        return self._launches.get(release_id)

    def renew(self, release_ids: Collection[str]) -> None:
        """Workers of these releases have an outdated environment: drain each, and replace it if needed."""
        for release_id in release_ids:
            self._start_failures.forget(release_id)
        for worker_id, child in list(self._children.items()):
            if child.release_id in release_ids:
                self.drain(worker_id)
        self.poke()

    def dismiss(self, release_id: str) -> None:
        """This release is deleted: start no workers of it, and end the existing ones."""
        self.withdraw(release_id)
        self._launches.pop(release_id, None)
        self.renew([release_id])
        for worker in list(self._pool.of_release(release_id)):
            self.drain(worker.worker_id)

    def has_workers(self, release_id: str) -> bool:
        """Whether a process of this release exists, or is ending."""
        return any(child.release_id == release_id for child in self._children.values())

    def withdraw(self, release_id: str, linger_s: float = 0.0) -> None:
        """Nothing points at this release any more: its workers end after their runs. If it was kept ready, its workers
        stay for `linger_s` of idleness, in case the tag moves back.
        """
        launch = self._launches.get(release_id)
        self._demands.let_go(release_id, launch.limits if launch is not None else None, linger_s)
        self.poke()

    def is_startable(self, release_id: str) -> bool:
        """Whether workers of this release are started here, not by hand."""
        launch = self._launches.get(release_id)
        return launch is not None and launch.limits.most(len(self._gpus)) > 0

    def poke(self) -> None:
        """Something has changed: check now."""
        self._news.set()

    def start(self) -> None:
        self._task = asyncio.create_task(self._keep(), name="fleet-keeper")

    async def stop(self) -> None:
        """Drain all workers, then end them."""
        if self._task is not None:
            self._task.cancel()
        for child in self._children.values():
            child.stopping = True  # its end is not a crash
        for worker in self._pool:
            self._gateway.drain(worker)
        await self._fleet.close(self._drain_s + FLUSH_S)

    def pause(self) -> None:
        """This node no longer leads: start and stop no workers. Running ones stay, for this node's next leadership or until `retire`."""
        self._is_paused = True
        if self._task is not None:
            self._task.cancel()

    def take_over(self, earlier: "Keeper") -> None:
        """Adopt the workers of this node's last leadership; one that does not come back is replaced like one that never came."""
        now_s = self._clock.now_s()
        for child in earlier._children.values():
            child.worker, child.started_s = None, now_s
        self._children |= earlier._children
        earlier._children = {}
        earlier._heir = self

    def retire(self) -> None:
        """Drain all workers: another node leads, and records what they still run."""
        for worker_id, child in self._children.items():
            if not child.stopping or child.leaves_by_s:
                child.stopping, child.leaves_by_s = True, 0.0
                self._end(worker_id)

    def drain(self, worker_id: str) -> bool:
        """Give a worker no more runs, and let it end after those it has; False when there is no such worker.

        A process of ours is told to end, and is replaced if its release still needs a worker.
        """
        worker, child = self._pool.get(worker_id), self._children.get(worker_id)
        if worker is not None:
            self._gateway.drain(worker)
        if child is not None and not child.stopping:
            self._send_away(worker_id, child)
        return worker is not None or child is not None

    def log_from(self, worker_id: str, offset: int, most: int) -> bytes | None:
        """What a worker wrote from an offset on; None when it has no log here. Blocking."""
        return self._fleet.log_from(worker_id, offset, most)

    def log_begin(self, worker_id: str) -> int:
        """The offset of the first kept byte of a worker's log. Blocking."""
        return self._fleet.log_begin(worker_id)

    def log_end(self, worker_id: str) -> int:
        """How many bytes a worker has written. Blocking."""
        return self._fleet.log_end(worker_id)

    def workers_of(self, release_id: str) -> int:
        """Workers of a release that may get runs, now or after their start."""
        children = sum(1 for child in self._children.values() if child.release_id == release_id and not child.stopping)
        joined = [worker for worker in self._pool.of_release(release_id) if worker.worker_id not in self._children]
        return children + sum(1 for worker in joined if worker.link is not None and not worker.draining)

    def _note_joined(self, worker: Worker) -> None:
        child = self._children.get(worker.worker_id)
        if child is not None:
            child.worker = worker

    async def _keep(self) -> None:
        while True:
            try:
                await self._round()
            except Exception as exc:  # noqa: BLE001 - the boundary of the task: the next round tries again
                self._log.error("fleet.round_failed", error=str(exc) if isinstance(exc, OSError) else repr(exc))
            self._news.clear()
            try:
                async with asyncio.timeout(ROUND_S):
                    await self._news.wait()
            except TimeoutError:
                pass

    async def _round(self) -> None:
        self._replace_unfit()
        now_s = self._clock.now_s()
        for worker_id, child in list(self._children.items()):
            self._stop_idle(worker_id, child)
            if child.worker is None and not child.stopping and now_s - child.started_s > START_S:
                self._fitness.ignores(worker_id, f"it has not registered within {START_S:.0f} s of its start")
                why = f"its worker did not start within {START_S:.0f} s: does the import of its code hang?"
                self._start_failures.failed(child.release_id, why, now_s)
        lanes: dict[str, list[Lane]] = {}
        for lane in self._dispatcher.lanes.all():
            lanes.setdefault(lane.release_id, []).append(lane)
        for launch in list(self._launches.values()):
            try:
                await self._scale(launch, lanes.get(launch.release_id, []), now_s)
            except Exception as exc:  # noqa: BLE001 - what is wrong with one release must not keep the others from having workers
                self._log.error("fleet.not_scaled", release_id=launch.release_id, error=str(exc) if isinstance(exc, OSError) else repr(exc))

    async def _scale(self, launch: Launch, lanes: list[Lane], now_s: float) -> None:
        release_id = launch.release_id
        workers = self._pool.of_release(release_id)
        if any(worker.link is not None for worker in workers):
            self._start_failures.is_there(release_id, now_s)
        demand = self._demands.demand(release_id, launch.limits, lanes, workers, self.workers_of(release_id))
        wanted = wanted_workers(demand, self._demands.limits_of(release_id, launch.limits))
        if wanted > demand.workers and (lacking := self._secrets.missing(release_id)):
            if self.failures.get(release_id) != lacking:
                self._log.warning("worker.not_started", release_id=release_id, error=lacking)
            self._start_failures.failed(release_id, lacking, now_s)
            return
        for _ in range(wanted - demand.workers):
            if not self._start_failures.may_start(release_id, now_s):
                break
            await self._start(launch)
        for _ in range(demand.workers - wanted):
            self._drain_one(release_id)

    def _replace_unfit(self) -> None:
        for worker_id in list(self._fitness.hung):
            why = self._fitness.hung.pop(worker_id)
            if worker_id not in self._children:
                continue  # started by hand, so not ours to end: it gets no runs until its run has stopped
            self._log.warning("worker.killed", worker_id=worker_id, why=why)
            self._gateway.put_down(worker_id)
            self._children[worker_id].stopping = True
            self._end(worker_id, 0.0)
        for worker_id in list(self._fitness.sick):
            self._fitness.sick.pop(worker_id)
            self.drain(worker_id)

    async def _start(self, launch: Launch) -> None:
        worker_id = f"{launch.release_id}-{secrets.token_hex(3)}"
        claims = WorkerClaims(worker_id, launch.owner, launch.release_id)
        spec = WorkerSpec(
            worker_id=worker_id,
            release_id=launch.release_id,
            owner=launch.owner,
            token=self._tokens.issue(claims),
            scheduler_addr=self._scheduler_addr,
            drain_s=self._drain_s,
            folder=launch.folder,
            manifest=launch.manifest,
            python=launch.python,
            image=launch.image,
            gpu=least_used(self._gpus, [child.gpu for child in self._children.values()]),
            env=self._secrets.environment(launch.release_id) | launch.env,
            variables=launch.variables,
        )
        self._children[worker_id] = _Child(launch.release_id, self._clock.now_s(), spec.gpu)
        try:
            await self._fleet.start(spec, self._ended)
        except (OSError, ValueError) as exc:  # ValueError: a variable or a path that no process can be given
            why = why_not_started(launch.image, launch.folder, exc)
            self._log.error("worker.not_started", worker_id=worker_id, error=why)
            self._ended(worker_id, -1)
            self.cannot_start(launch.release_id, why)
        else:
            self._log.info("worker.started", worker_id=worker_id, release_id=launch.release_id)

    def _ended(self, worker_id: str, status: int) -> None:
        if self._heir is not None:
            self._heir._ended(worker_id, status)
            return
        child = self._children.pop(worker_id, None)
        if self._is_paused:
            self._log.info("worker.ended", worker_id=worker_id, status=status)
            return  # the next leader takes care of its runs
        worker = None if child is None else child.worker
        served = worker is not None and worker.given > len(worker.runs)  # one of its runs is over, so it did not crash at its start
        self._gateway.process_ended(worker_id)
        # it was told to end by us, or ended normally for another reason
        if child is None or child.stopping or (worker is not None and status == 0):
            self._log.info("worker.ended", worker_id=worker_id, status=status)
            self.poke()
            return
        now_s = self._clock.now_s()
        tail = self._secrets.redactor(child.release_id).text(self._fleet.log_of(worker_id).decode(errors="replace"))
        why = how_it_ended(tail, status)
        delay_s = self._start_failures.crashed(child.release_id, why, lived_s=now_s - child.started_s, served=served, now_s=now_s)
        self._log.warning("worker.crashed", worker_id=worker_id, status=status, again_in_s=delay_s, last=tail[-300:])
        asyncio.get_running_loop().call_later(delay_s, self.poke)

    def _drain_one(self, release_id: str) -> None:
        idle = [worker for worker in self._pool.of_release(release_id) if worker.worker_id in self._children and not worker.runs]
        candidates = [worker for worker in idle if not self._children[worker.worker_id].stopping]
        if not candidates:
            return
        worker = min(candidates, key=lambda worker: worker.last_used_s)
        self._gateway.drain(worker)
        self._send_away(worker.worker_id, self._children[worker.worker_id])

    def _send_away(self, worker_id: str, child: _Child) -> None:
        """Stop a worker after its runs: a worker that is told to end while it works soon gives its runs back."""
        child.stopping = True
        child.leaves_by_s = self._clock.now_s() + DRAIN_S
        self._stop_idle(worker_id, child)

    def _stop_idle(self, worker_id: str, child: _Child) -> None:
        worker = self._pool.get(worker_id)
        if child.leaves_by_s and (worker is None or not worker.runs or self._clock.now_s() > child.leaves_by_s):
            child.leaves_by_s = 0.0
            self._end(worker_id)

    def _end(self, worker_id: str, grace_s: float | None = None) -> None:
        grace_s = self._drain_s + FLUSH_S if grace_s is None else grace_s
        task = asyncio.create_task(self._fleet.stop(worker_id, grace_s), name=f"stop-{worker_id}")
        self._stopping.add(task)
        task.add_done_callback(self._stopping.discard)
