"""Sends a webhook delivery again, on request."""

from collections.abc import Awaitable, Callable

import msgspec

from gen_orchestrator.api.runs import RunRoutes
from gen_orchestrator.domain.runs import Run
from gen_orchestrator.domain.webhooks import Delivery
from gen_worker.http.asgi import Request, RequestError


class RedeliveryRoutes:
    """Handler of `/v1/runs/{run_id}/webhooks/{delivery_id}/redeliver`."""

    def __init__(self, runs: RunRoutes, redeliver: Callable[[Run, str], Awaitable[Delivery | None]]) -> None:
        self._runs = runs
        self._redeliver = redeliver

    async def redeliver(self, request: Request) -> None:
        """`POST`: 202 with the id of the new delivery; the message keeps its own id. 409 while the delivery is still being tried."""
        run, _ = await self._runs.find(request)
        delivery_id = request.parts["delivery_id"]
        try:
            made = await self._redeliver(run, delivery_id)
        except ValueError as exc:
            raise RequestError(409, "conflict", str(exc)) from None
        if made is None:
            raise RequestError(404, "not_found", f"run {run.id} has no delivery {delivery_id[:160]!r}", error="unknown_delivery")
        await request.answer(202, msgspec.json.encode({"id": made.id, "state": made.state}))
