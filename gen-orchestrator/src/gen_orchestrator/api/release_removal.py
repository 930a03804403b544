"""Deleting releases over HTTP: one by its id, or all but the newest of each endpoint."""

import asyncio
from typing import Annotated, Any

import msgspec

from gen_orchestrator.api.access import caller_of
from gen_orchestrator.api.envelope import refused
from gen_orchestrator.api.json_bodies import JsonError, read_json
from gen_orchestrator.api.releases import ReleaseRoutes
from gen_orchestrator.domain.pruning import MAX_KEEP
from gen_orchestrator.hub.registry import InUseError, NotFoundError
from gen_orchestrator.hub.removal import Removal, Removed
from gen_worker.errors import FieldError
from gen_worker.http.asgi import Request, RequestError

MAX_BODY_BYTES = 64 << 10


class Prune(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a prune: how many releases of each endpoint stay besides those in use, and the owner; `dry_run`: only
    list those that would be deleted.
    """

    keep: Annotated[int, msgspec.Meta(ge=0, le=MAX_KEEP)]
    owner: str = ""
    endpoint: str = ""
    dry_run: bool = False


class RemovalRoutes:
    """Handlers of `DELETE /v1/releases/{release_id}` and `POST /v1/releases/prune`."""

    def __init__(self, removal: Removal, releases: ReleaseRoutes) -> None:
        self._removal = removal
        self._releases = releases

    async def delete(self, request: Request) -> None:
        """`DELETE /v1/releases/{release_id}`: answers with the deleted release when its files are gone, or after 15 s."""
        release = self._releases.release_of(request, "release_id")
        try:
            removed = await self._removal.delete(release.release_id, caller_of(request))
        except InUseError as exc:
            raise RequestError(
                409,
                "release_in_use",
                str(exc),
                hint="move its tags, end its canary or shadow, and wait for its runs; then try again",
                errors=[FieldError("", use) for use in exc.uses],
            ) from None
        except NotFoundError as exc:
            raise RequestError(404, "not_found", str(exc), error="unknown_release") from None
        await request.answer(200, msgspec.json.encode(_shown(removed)))

    async def prune(self, request: Request) -> None:
        """`POST /v1/releases/prune`: answers with the deleted releases, oldest first."""
        try:
            wanted = msgspec.convert(read_json(await request.body(MAX_BODY_BYTES)), Prune)
        except JsonError as exc:
            raise refused(exc, "the body") from None
        except msgspec.ValidationError as exc:
            raise RequestError(400, "validation", f'{exc}; expected {{"keep": 3}}') from None
        owner = caller_of(request).own(wanted.owner)
        if wanted.dry_run:
            found = await asyncio.to_thread(self._removal.to_prune, wanted.keep, owner, wanted.endpoint)
            await request.answer(200, msgspec.json.encode({"data": [{"release_id": each} for each in found], "freed_bytes": 0}))
            return
        removed = await self._removal.prune(wanted.keep, owner, wanted.endpoint, caller_of(request))
        freed_bytes = sum(each.freed_bytes for each in removed)
        await request.answer(200, msgspec.json.encode({"data": [_shown(each) for each in removed], "freed_bytes": freed_bytes}))


def _shown(removed: Removed) -> dict[str, Any]:
    release = removed.release
    fields = {name: getattr(release, name) for name in ("release_id", "owner", "endpoint", "message", "created_at", "deleted_at")}
    return {**fields, "cleared": removed.is_cleared, "freed_bytes": removed.freed_bytes}
