"""Takes an endpoint out of service over HTTP: its tags are removed, its releases and its history stay."""

import asyncio
from collections.abc import Callable, Collection
from typing import Any

import msgspec

from gen_orchestrator.api.access import caller_of
from gen_orchestrator.api.operations import NUMBER, TEXT, list_of, object_of, operation, path, statuses
from gen_orchestrator.auth.keys import Keys
from gen_orchestrator.domain.access import Caller
from gen_orchestrator.gates.shadows import Shadows
from gen_orchestrator.hub.registry import NotFoundError, Registry, TagMovedError
from gen_orchestrator.scheduling.open_runs import OpenRuns
from gen_worker.http.asgi import Request, RequestError
from gen_worker.http.components import Schema
from gen_worker.http.openapi import json_response

_TAG: Schema = object_of("function tag release_id", **dict.fromkeys(("function", "tag", "release_id"), TEXT))
_WITHDRAWN: Schema = object_of(
    "owner endpoint data running queued",
    **{**list_of(_TAG)["properties"], **dict.fromkeys(("owner", "endpoint"), TEXT), **dict.fromkeys(("running", "queued"), NUMBER)},
)


class WithdrawalRoutes:
    """Handlers of `DELETE /v1/endpoints/{owner}/{endpoint}` and `DELETE /v1/deployments/{deployment_id}`.
    `on_withdrawn` gets the releases that had tags, so that their idle workers end.
    """

    def __init__(
        self, registry: Registry, open_runs: OpenRuns, shadows: Shadows, keys: Keys, on_withdrawn: Callable[[Collection[str]], None]
    ) -> None:
        self._registry = registry
        self._open = open_runs
        self._shadows = shadows
        self._keys = keys
        self._on_withdrawn = on_withdrawn

    async def endpoint(self, request: Request) -> None:
        """Answers with the removed tags, and how many runs continue to their end."""
        caller, owner, endpoint = caller_of(request), request.parts["owner"], request.parts["endpoint"]
        if not caller.sees(owner):
            raise RequestError(404, "not_found", f"no endpoint {owner[:64]}/{endpoint[:64]}", error="unknown_endpoint")
        body = await self._withdraw(caller, owner, endpoint)
        await request.answer(200, msgspec.json.encode(body))

    async def deployment(self, request: Request) -> None:
        """The same for the public `cozyctl`."""
        caller, endpoint = caller_of(request), request.parts["deployment_id"]
        owners = sorted({tag.owner for tag in self._registry.tags(caller.own(), endpoint)})
        if not owners:
            raise RequestError(404, "not_found", f"no deployment {endpoint[:100]!r}", error="not_found")
        await self._withdraw(caller, owners[0], endpoint)
        await request.answer(204, b"")

    async def _withdraw(self, caller: Caller, owner: str, endpoint: str) -> dict[str, Any]:
        for shadow in self._registry.shadows(owner):
            if shadow.endpoint == endpoint and not shadow.ended_at:
                await self._shadows.end(shadow.place, "its endpoint was taken out of service", caller)
        try:
            tags = await asyncio.to_thread(self._registry.withdraw, owner, endpoint)
        except NotFoundError as exc:
            raise RequestError(404, "not_found", str(exc), error="unknown_endpoint") from None
        except TagMovedError as exc:
            raise RequestError(409, "conflict", f"{exc}: ask again") from None
        await asyncio.to_thread(self._keys.note, caller, owner, "endpoint.withdrawn", endpoint, f"{len(tags)} tags")
        self._on_withdrawn({tag.release_id for tag in tags})
        statuses = [each.status for each in list(self._open.values()) if (each.run.owner, each.run.endpoint) == (owner, endpoint)]
        queued = statuses.count("queued")
        data = [{"function": tag.function, "tag": tag.tag, "release_id": tag.release_id} for tag in tags]
        return {"owner": owner, "endpoint": endpoint, "data": data, "running": len(statuses) - queued, "queued": queued}


def withdrawal_paths() -> dict[str, Schema]:
    """For the OpenAPI document."""
    answers = {"200": json_response("The removed tags, and the runs that continue", _WITHDRAWN), **statuses("409")}
    delete = operation("withdraw_endpoint", "Take an endpoint out of service", answers, path("owner"), path("endpoint"))
    return {"/v1/endpoints/{owner}/{endpoint}": {"delete": delete}}
