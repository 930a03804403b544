"""Health, metrics, and the current state."""

from collections.abc import Mapping

import msgspec

from gen_orchestrator import __version__
from gen_orchestrator.api import openapi
from gen_orchestrator.api.access import caller_of
from gen_orchestrator.api.disk import DiskRoutes
from gen_orchestrator.api.workers import shown_worker
from gen_orchestrator.hub.registry import Registry
from gen_orchestrator.scheduling.dispatcher import Dispatcher
from gen_orchestrator.scheduling.fitness import Fitness
from gen_orchestrator.scheduling.metrics import Metrics, Of
from gen_orchestrator.scheduling.pool import Pool
from gen_worker.http.asgi import Request
from gen_worker.http.zipped import answer_zipped

FAILURE_CHARACTERS = 2000


class AdminRoutes:
    """Handlers of `/livez`, `/readyz`, `/metrics`, `/v1/status` and `/openapi.json`. `failures`: by release, the last
    lines of a crashed worker; `dropped`: by owner and tag, which canary was removed from it, and why."""

    def __init__(
        self,
        registry: Registry,
        dispatcher: Dispatcher,
        pool: Pool,
        metrics: Metrics,
        fitness: Fitness,
        failures: Mapping[str, str],
        dropped: Mapping[tuple[str, str], str],
        disk: DiskRoutes,
    ) -> None:
        self._disk = disk
        self._dropped = dropped
        self._registry = registry
        self._dispatcher = dispatcher
        self._pool = pool
        self._metrics = metrics
        self._fitness = fitness
        self._failures = failures

    async def livez(self, request: Request) -> None:
        await request.answer(200, b'{"ok":true}')

    async def readyz(self, request: Request) -> None:
        await request.answer(200, b'{"ok":true}')

    async def metrics(self, request: Request) -> None:
        """`GET /metrics`: for an operator everything, for an admin of an owner what is counted by that owner's functions and workers."""
        owner = caller_of(request).own()
        of = Of(owner, frozenset(release.release_id for release in self._registry.releases(owner))) if owner else None
        page = self._metrics.text(self._dispatcher, self._pool, self._disk.known() if of is None else None, of)
        await request.answer(200, page, b"text/plain; version=0.0.4; charset=utf-8")

    async def status(self, request: Request) -> None:
        """`GET /v1/status`: current queues and workers, as shown by `cozyctl ps`."""
        caller = caller_of(request)
        seen = {release.release_id for release in self._registry.releases(caller.own())}
        lanes = [
            {"release_id": lane.release_id, "function": lane.function, "queued": len(lane.queue), "running": lane.running}
            for lane in self._dispatcher.lanes.all()
            if lane.release_id in seen
        ]
        tags = [
            {"ref": f"{t.owner}/{t.endpoint}/{t.function}:{t.tag}", "release_id": t.release_id} for t in self._registry.tags(caller.own())
        ]
        body = {
            "version": __version__,
            "open_runs": sum(caller.sees(each.run.owner) for each in self._dispatcher.open.values() if not each.is_shadow),
            "lanes": lanes,
            "workers": [shown_worker(worker) for worker in self._pool if caller.sees(worker.owner)],
            "tags": tags,
            "candidates": [
                {"ref": f"{c.owner}/{c.endpoint}/{c.function}:{c.tag}", "release_id": c.release_id, "percent": c.percent}
                for c in self._registry.candidates(caller.own())
            ],
            "dropped": {ref: why for (owner, ref), why in self._dropped.items() if caller.sees(owner)},
            "paused": {release_id: why for release_id, why in self._fitness.paused.items() if release_id in seen},
            "disk": {"releases": len(seen), **msgspec.structs.asdict(await self._disk.use(caller.own()))},
            "failures": {release_id: text[-FAILURE_CHARACTERS:] for release_id, text in self._failures.items() if release_id in seen},
        }
        await request.answer(200, msgspec.json.encode(body))

    async def openapi(self, request: Request) -> None:
        await answer_zipped(request, msgspec.json.encode(openapi.document(self._registry, caller_of(request).own())))
