"""The models of one run: chooses one device for all, then acquires one after the other, and watches each step."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from gen_worker import events
from gen_worker.authoring.signature import FunctionSpec, Injection
from gen_worker.errors import FatalError
from gen_worker.events import RunEvent
from gen_worker.execution.request import RunRequest
from gen_worker.execution.run_parts import RunParts
from gen_worker.execution.step_guard import StepGuard
from gen_worker.execution.stuck import Phase, WatchedPhase, thread_stacks
from gen_worker.refs import canonical_ref
from gen_worker.residency.manager import Emit, ModelUse
from gen_worker.residency.place import Lease, form_name
from gen_worker.residency.seat import Seat

_PHASES: Mapping[str, Phase] = {events.RESOLVE_STARTED: "model_resolve", events.LOAD_STARTED: "model_load"}


class RunModels:
    """Takes leases for one run. Whatever must be given back is passed to `hold` as soon as it is taken; `uses`
    describes each lease.

    A run's models are those of its payload and of its function; in a realtime session of a scheduler, those that
    `request.injected` names.
    """

    def __init__(
        self,
        parts: RunParts,
        spec: FunctionSpec,
        request: RunRequest,
        payload: msgspec.Struct,
        say: Callable[[RunEvent], None],
        hold: Callable[[tuple[str, Callable[[], object]]], None],
        uses: list[ModelUse],
    ) -> None:
        self._models = parts.models
        self._stuck = parts.stuck
        self._spec = spec
        self._request = request
        self._payload = payload
        self._say = say
        self._hold = hold
        self._uses = uses
        self._guard = StepGuard(parts.log, "watching over a model", request.run_id, spec.name)
        self._refs: Sequence[str] | None = None if request.injected is None else _by_position(spec.injections, request.injected)
        self._seat: Seat | None = None

    def take_seat(self) -> Seat:
        """Choose the device. `FatalError` when a parameter has no model."""
        spec = self._spec
        if self._refs is None:
            seat = self._models.seat(spec, self._payload)
        else:
            named = zip(spec.injections, self._refs, strict=True)
            seat = self._models.seat_for(spec.name, [form_name(canonical_ref(ref), injection.type) for injection, ref in named])
        self._hold(("seat", seat.release))
        self._seat = seat
        return seat

    async def acquire(self, number: int) -> Any:
        """The model for the parameter with this number."""
        watched: WatchedPhase | None = None

        def emit(event: RunEvent) -> None:
            nonlocal watched
            # The manager calls this in the middle of its work: an error here would lose what it has just taken for us.
            with self._guard:
                if event.event_type != events.MODEL_PROGRESS:
                    over, watched = watched, None
                    self._stuck.leave(over)
                    watched = self._watch(event)
            self._say(event)

        try:
            lease, use = await self._lease(number, emit)
            self._hold(("lease", lease.release))  # here, so that nothing can come between
        finally:
            with self._guard:
                self._stuck.leave(watched)
        self._uses.append(use)
        return lease.view()

    async def _lease(self, number: int, emit: Emit) -> tuple[Lease, ModelUse]:
        spec, injection, listings = self._spec, self._spec.injections[number], self._request.listings
        if self._refs is None:
            return await self._models.acquire(spec, injection, self._payload, emit, listings, self._seat)
        return await self._models.acquire_ref(spec, injection, self._refs[number], emit, listings, self._seat)

    def _watch(self, event: RunEvent) -> WatchedPhase | None:
        phase = _PHASES.get(event.event_type)
        if phase is None:
            return None
        step: events.ModelStep = event.payload
        facts: dict[str, Any] = {"param_name": step.param_name, "model_id": step.model_id}
        return self._stuck.enter(phase, self._request.run_id, self._spec.name, self._say, lambda: thread_stacks("model-load"), **facts)


def _by_position(injections: Sequence[Injection], refs: Sequence[str]) -> Sequence[str]:
    """The refs of the parameters. Surplus refs are ignored."""
    if len(refs) < len(injections):
        raise FatalError(f"the session names {len(refs)} models, so that '{injections[len(refs)].param}' has none")
    return refs[: len(injections)]
