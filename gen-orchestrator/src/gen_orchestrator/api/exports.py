"""A run as one file: its input, release, events and result. That is enough to run it again elsewhere and compare."""

import asyncio
from typing import Any

import msgspec

from gen_orchestrator.api.run_object import RunObjects
from gen_orchestrator.api.runs import RunRoutes
from gen_orchestrator.hub.registry import NotFoundError, Registry
from gen_orchestrator.scheduling.feed import decode_entries, event_id
from gen_orchestrator.store.base import RunStore
from gen_worker.http.asgi import Request

FORMAT = "gen-orchestrator run"
VERSION = 1


class ExportRoutes:
    """Handler of `/v1/runs/{run_id}/export`."""

    def __init__(self, runs: RunRoutes, registry: Registry, store: RunStore) -> None:
        self._runs = runs
        self._registry = registry
        self._store = store

    async def export(self, request: Request) -> None:
        """`GET /v1/runs/{run_id}/export`: the run with its input, its release's entry of the function, and its events."""
        run, open_run = await self._runs.find(request)
        chunks = await asyncio.to_thread(self._store.events_of, run.id)
        entries = [
            {"id": event_id(entry), "event": entry.name, "type": entry.type, "data": entry.data}
            for entry in decode_entries(chunk.events for chunk in chunks)
        ]
        body = {
            "format": FORMAT,
            "version": VERSION,
            "run": RunObjects().of(run, open_run, with_input=True),  # a file that is passed on must not grant access
            "release": self._release(run.release_id, run.function),
            "events": entries,
        }
        name = f"attachment; filename=run-{run.id}.json"
        await request.answer(200, msgspec.json.encode(body), headers={"content-disposition": name})

    def _release(self, release_id: str, function: str) -> dict[str, Any]:
        try:
            release, manifest = self._registry.release(release_id), self._registry.manifest(release_id)
        except NotFoundError:
            return {"release_id": release_id}
        entry = next((each for each in manifest.callables if each.name == function), None)
        return {
            "release_id": release_id,
            "digest": release.digest,
            "message": release.message,
            "created_at": release.created_at,
            **({"deleted_at": release.deleted_at} if release.deleted_at else {}),
            "function": entry,
            "models": manifest.models_of(function),
        }
