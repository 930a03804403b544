"""Health, metrics, what runs where, releases and tags."""

import asyncio
from collections.abc import Callable, Mapping

import msgspec

from gen_orchestrator import __version__
from gen_orchestrator.api import openapi
from gen_orchestrator.api.workers import shown_worker
from gen_orchestrator.hub.registry import NotFoundError, Registry, TagMovedError
from gen_orchestrator.scheduling.dispatcher import Dispatcher
from gen_orchestrator.scheduling.fitness import Fitness
from gen_orchestrator.scheduling.metrics import Metrics
from gen_orchestrator.scheduling.pool import Pool
from gen_orchestrator.store.base import Tag
from gen_worker.http.asgi import Request, RequestError

FAILURE_CHARACTERS = 2000


class MoveTag(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a tag move. `expected`: the release that the tag must point at now, `""` for none."""

    release_id: str
    expected: str | None = None


class AdminRoutes:
    """Handlers of `/livez`, `/readyz`, `/metrics`, `/v1/status`, `/v1/workers`, `/v1/releases`, `/v1/endpoints/...`. `on_tag_moved` is
    called after each move of a tag. `failures`: by release, the last lines of a worker that crashed."""

    def __init__(
        self,
        registry: Registry,
        dispatcher: Dispatcher,
        pool: Pool,
        metrics: Metrics,
        fitness: Fitness,
        failures: Mapping[str, str],
        on_tag_moved: Callable[[Tag], None],
    ) -> None:
        self._registry = registry
        self._dispatcher = dispatcher
        self._pool = pool
        self._metrics = metrics
        self._fitness = fitness
        self._failures = failures
        self._on_tag_moved = on_tag_moved

    async def livez(self, request: Request) -> None:
        await request.answer(200, b'{"ok":true}')

    async def readyz(self, request: Request) -> None:
        await request.answer(200, b'{"ok":true}')

    async def metrics(self, request: Request) -> None:
        await request.answer(200, self._metrics.text(self._dispatcher, self._pool), b"text/plain; version=0.0.4; charset=utf-8")

    async def status(self, request: Request) -> None:
        """`GET /v1/status`: queues and workers now, as `cozyctl ps` shows them."""
        lanes = [
            {"release_id": lane.release_id, "function": lane.function, "queued": len(lane.queue), "running": lane.running}
            for lane in self._dispatcher.lanes.all()
        ]
        tags = [{"ref": f"{t.owner}/{t.endpoint}/{t.function}:{t.tag}", "release_id": t.release_id} for t in self._registry.tags()]
        body = {
            "version": __version__,
            "open_runs": len(self._dispatcher.open),
            "lanes": lanes,
            "workers": [shown_worker(worker) for worker in self._pool],
            "tags": tags,
            "paused": self._fitness.paused,
            "failures": {release_id: text[-FAILURE_CHARACTERS:] for release_id, text in self._failures.items()},
        }
        await request.answer(200, msgspec.json.encode(body))

    async def releases(self, request: Request) -> None:
        query = request.query()
        found = self._registry.releases(query.get("owner", ""), query.get("endpoint", ""))
        data = [
            {
                "release_id": release.release_id,
                "owner": release.owner,
                "endpoint": release.endpoint,
                "source": release.source,
                "created_at": release.created_at,
                "message": release.message,
                "functions": [entry.name for entry in self._registry.manifest(release.release_id).functions],
            }
            for release in found
        ]
        await request.answer(200, msgspec.json.encode({"data": data}))

    async def move_tag(self, request: Request) -> None:
        """`PUT /v1/endpoints/{owner}/{endpoint}/functions/{function}/tags/{tag}`."""
        parts = request.parts
        try:
            wanted = msgspec.json.decode(await request.body(64 << 10), type=MoveTag)
        except (msgspec.DecodeError, UnicodeDecodeError) as exc:
            raise RequestError(400, "validation", f'{exc}; expected {{"release_id": "...", "expected": "..."}}') from None
        try:
            tag = await asyncio.to_thread(
                lambda: self._registry.move(
                    parts["owner"], parts["endpoint"], parts["function"], parts["tag"], wanted.release_id, expected=wanted.expected
                )
            )
        except NotFoundError as exc:
            raise RequestError(404, "not_found", str(exc)) from None
        except TagMovedError as exc:
            raise RequestError(409, "conflict", str(exc)) from None
        self._on_tag_moved(tag)
        await request.answer(200, msgspec.json.encode(tag))

    async def openapi(self, request: Request) -> None:
        await request.answer(200, msgspec.json.encode(openapi.document(self._registry)))
