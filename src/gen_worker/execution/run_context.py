"""Makes a function's `ctx` from a run's request."""

from typing import Any

import msgspec

from gen_worker import events
from gen_worker.authoring.context import ActionContext, OutputStore
from gen_worker.execution.event_pipe import EventPipe
from gen_worker.execution.request import RunRequest

_encode_json = msgspec.json.Encoder().encode


def context_of(request: RunRequest, pipe: EventPipe, outputs: OutputStore, timeout_ms: int, device: str | None) -> ActionContext:
    """A context whose events go into `pipe`. `timeout_ms` 0: no limit. `device`: where the function computes, as torch names it."""

    def emitter(event: dict[str, Any]) -> None:
        if pipe.closed:
            return
        event_type = event["type"]
        if event_type in events.RESERVED:
            raise ValueError(f"the event {event_type} is the worker's own; choose another name")
        # Encode in the author's thread: the author may change the payload after this returns.
        pipe.put_event(event_type, _encode_json(event["payload"]))

    return ActionContext(
        request.run_id,
        emitter,
        request.owner,
        request.invoker_id,
        timeout_ms or None,
        resolved_cozy_models_by_id=request.resolved_models,
        required_models=request.required_models,
        outputs=outputs,
        device=device,
        traceparent=request.traceparent,
        attempt=request.attempt,
        children=request.children,
    )
