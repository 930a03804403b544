"""Shadow runs over HTTP: start, get, stop."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated

import msgspec

from gen_orchestrator.api.absent import no_owner
from gen_orchestrator.api.access import caller_of
from gen_orchestrator.api.envelope import refused
from gen_orchestrator.api.json_bodies import JsonError, read_json
from gen_orchestrator.domain.compatibility import function_changes
from gen_orchestrator.domain.shadow import Shadow
from gen_orchestrator.gates.shadows import Place, Shadows
from gen_orchestrator.hub.registry import NotFoundError, Registry, Resolved, TagNameError
from gen_worker.http.asgi import Request, RequestError
from gen_worker.names import is_tag

MAX_BODY_BYTES = 64 << 10
EXAMPLE = '{"release_id": "...", "percent": 10}'


class NewShadow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a new shadow. `percent` of the tag's runs are copied; `tolerance`: how much numbers and images may
    differ, 0 to 1; `runs`: it ends after this many comparisons, 0 for never.
    """

    release_id: str
    percent: Annotated[float, msgspec.Meta(gt=0, le=100)] = 10.0
    tolerance: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.0
    runs: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = 0


class ShadowRoutes:
    """Handlers of `/v1/shadows` and `/v1/endpoints/.../tags/{tag}/shadow`. `prepare` makes a worker of a release ready,
    and returns what prevents that, "" for nothing; `resume` allows a paused release workers again.
    """

    def __init__(
        self,
        shadows: Shadows,
        registry: Registry,
        prepare: Callable[[str], Awaitable[str]],
        resume: Callable[[str], None],
        now_s: Callable[[], float],
    ) -> None:
        self._shadows = shadows
        self._registry = registry
        self._prepare = prepare
        self._resume = resume
        self._now_s = now_s

    async def list(self, request: Request) -> None:
        """`GET /v1/shadows[?owner=&endpoint=]`: the last one of each tag, active or ended."""
        query = request.query()
        owner, endpoint = caller_of(request).own(query.get("owner", "")), query.get("endpoint", "")
        found = [each for each in self._registry.shadows(owner) if endpoint in ("", each.endpoint)]
        await request.answer(200, msgspec.json.encode({"data": [self._shadows.report(each) for each in found]}))

    async def get(self, request: Request) -> None:
        """`GET /v1/endpoints/{owner}/{endpoint}/functions/{function}/tags/{tag}/shadow`."""
        await self._answer(request, self._find(request))

    async def start(self, request: Request) -> None:
        """`PUT` on the same path: copy a share of the tag's runs to a release, replacing the tag's earlier shadow."""
        place, now = self._resolve(request)
        try:
            wanted = msgspec.convert(read_json(await request.body(MAX_BODY_BYTES)), NewShadow)
        except JsonError as exc:
            raise refused(exc, "the body") from None
        except msgspec.ValidationError as exc:
            raise RequestError(400, "validation", f"{exc}; expected {EXAMPLE}") from None
        try:
            copied = self._registry.resolve(*place[:3], f"@{wanted.release_id}")
        except NotFoundError as exc:
            raise RequestError(404, "not_found", str(exc), error="unknown_release") from None
        if wanted.release_id == now.release_id:
            raise RequestError(409, "conflict", f"the tag already points at {now.release_id}: there is nothing to compare it with")
        refusing = [each for each in function_changes(now.entry, copied.entry) if each.breaking and each.side == "input"]
        if refusing:
            told = "; ".join(f"{each.pointer or 'as a whole'}: {each.text}" for each in refusing[:5])
            raise RequestError(409, "breaking_change", f"{wanted.release_id} does not accept what callers of the tag send: {told}")
        self._resume(wanted.release_id)
        if why := await self._prepare(wanted.release_id):
            raise RequestError(409, "release_not_ready", f"{wanted.release_id} cannot serve: {why}")
        owner, endpoint, function, tag = place
        shadow = Shadow(
            owner=owner,
            endpoint=endpoint,
            function=function,
            tag=tag,
            release_id=wanted.release_id,
            against=now.release_id,
            percent=wanted.percent,
            tolerance=wanted.tolerance,
            runs=wanted.runs,
            since=self._now_s(),
        )
        await self._shadows.start(shadow, caller_of(request))
        await self._answer(request, shadow)

    async def stop(self, request: Request) -> None:
        """`DELETE` on the same path: stop copying; answers with the results."""
        shadow = self._find(request)
        if shadow.ended_at:
            raise RequestError(409, "conflict", f"it has already ended: {shadow.why}")
        await self._shadows.end(shadow.place, "stopped", caller_of(request))
        await self._answer(request, self._registry.shadow(shadow.place) or shadow)

    async def _answer(self, request: Request, shadow: Shadow) -> None:
        body = await asyncio.to_thread(lambda: msgspec.json.encode(self._shadows.report(shadow)))
        await request.answer(200, body)

    def _find(self, request: Request) -> Shadow:
        place = self._place(request)
        shadow = self._registry.shadow(place)
        if shadow is None:
            name = f"{'/'.join(place[:3])}:{place[3]}"[:200]
            raise RequestError(
                404, "not_found", f"{name} has no shadow runs; start them with: cozyctl shadow start", error="unknown_shadow"
            )
        return shadow

    def _resolve(self, request: Request) -> tuple[Place, Resolved]:
        place = self._place(request)
        if not is_tag(place[3]):
            raise RequestError(400, "validation", str(TagNameError(place[3])), error="invalid_tag")
        try:
            return place, self._registry.resolve(*place)
        except NotFoundError as exc:
            raise RequestError(404, "not_found", str(exc), error="unknown_release") from None

    def _place(self, request: Request) -> Place:
        parts = request.parts
        if not caller_of(request).sees(parts["owner"]):
            raise no_owner(parts["owner"], caller_of(request))
        return parts["owner"], parts["endpoint"], parts["function"], parts["tag"]
