"""Releases and the tags that point at them: lists, differences, and moving a tag.

A tag moves by compare-and-set if the caller names the release that it must point at now. A move that would break
callers is refused unless the request has `"breaking": true`; a move back to a release that the tag pointed at before is
always allowed. A move to a release that does not pass the golden requests of the function is refused unless the request
has `"skip_gates": true`.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import msgspec

from gen_orchestrator.api.absent import absent, no_owner
from gen_orchestrator.api.access import caller_of
from gen_orchestrator.api.envelope import refused
from gen_orchestrator.api.gates import pass_goldens
from gen_orchestrator.api.json_bodies import JsonError, read_json
from gen_orchestrator.api.waiting_callers import while_waited_for
from gen_orchestrator.auth.keys import Keys
from gen_orchestrator.domain.compatibility import Change, changes, function_changes
from gen_orchestrator.gates.goldens import Goldens
from gen_orchestrator.hub.registry import NotFoundError, Registry, TagMovedError, TagNameError
from gen_orchestrator.store.base import Release, Tag
from gen_worker.contract.manifest import FunctionEntry
from gen_worker.errors import FieldError
from gen_worker.http.asgi import Request, RequestError
from gen_worker.names import is_tag

MAX_BODY_BYTES = 64 << 10
_NAMES = ("owner", "endpoint", "function", "tag")


class MoveTag(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a tag move. `expected`: the release that the tag must point at now, `""` for none; `breaking`: allow
    breaking changes; `now`: do not wait for a worker of the release; `skip_gates`: do not run golden requests;
    `dry_run`: make all checks, but move nothing; `canary`: give the release this percentage of the tag's runs without
    moving the tag. 0 ends the canary, 100 is a move, and a move of the tag ends its canary.
    """

    release_id: str
    expected: str | None = None
    breaking: bool = False
    now: bool = False
    skip_gates: bool = False
    dry_run: bool = False
    canary: Annotated[float, msgspec.Meta(ge=0, le=100)] | None = None


class ReleaseRoutes:
    """Handlers of `/v1/releases`, `/v1/tags` and `/v1/endpoints/.../tags/...`. `prepare` makes a worker of a release
    ready, and returns what prevents that, "" for nothing; `on_tag_moved` is called after each move; `unset_secrets`
    returns the secrets that a release needs and that are not set, `model_problems` why its workers will not get a model.
    """

    def __init__(
        self,
        registry: Registry,
        keys: Keys,
        goldens: Goldens,
        prepare: Callable[[str], Awaitable[str]],
        on_tag_moved: Callable[[Tag], None],
        unset_secrets: Callable[[str], list[str]],
        model_problems: Callable[[str], list[str]],
    ) -> None:
        self._unset_secrets = unset_secrets
        self._model_problems = model_problems
        self._goldens = goldens
        self._prepare = prepare
        self._keys = keys
        self._registry = registry
        self._on_tag_moved = on_tag_moved

    async def list(self, request: Request) -> None:
        """`GET /v1/releases[?owner=&endpoint=&deleted=true]`: newest first, with the tags that point at each; or the deleted ones."""
        query = request.query()
        wants_deleted = query.get("deleted", "false")
        if wants_deleted not in ("true", "false"):
            raise RequestError(400, "validation", f"deleted={wants_deleted[:20]!r}: expected true or false")
        owner, endpoint = caller_of(request).own(query.get("owner", "")), query.get("endpoint", "")
        pointing: dict[str, list[str]] = {}
        for tag in self._registry.tags(owner, endpoint):
            pointing.setdefault(tag.release_id, []).append(f"{tag.function}:{tag.tag}")
        if wants_deleted == "true":
            data = await asyncio.to_thread(lambda: [{**self._shown(each), "tags": []} for each in self._registry.deleted(owner, endpoint)])
        else:
            data = [{**self._shown(each), "tags": pointing.get(each.release_id, [])} for each in self._registry.releases(owner, endpoint)]
        await request.answer(200, msgspec.json.encode({"data": data}))

    async def get(self, request: Request) -> None:
        """`GET /v1/releases/{release_id}`: with its manifest, and what is missing before it can serve."""
        release = self.release_of(request, "release_id")
        tags = [f"{tag.function}:{tag.tag}" for tag in self._registry.tags(release.owner) if tag.release_id == release.release_id]
        lacks = {
            "unset_secrets": self._unset_secrets(release.release_id),
            "model_problems": await asyncio.to_thread(self._model_problems, release.release_id),
        }
        body = {**self._shown(release), "tags": tags, **lacks, "manifest": msgspec.Raw(release.manifest)}
        await request.answer(200, msgspec.json.encode(body))

    async def diff(self, request: Request) -> None:
        """`GET /v1/releases/{release_id}/diff/{other_id}`: what changes for callers when a tag moves from the first to the second."""
        old, new = self.release_of(request, "release_id"), self.release_of(request, "other_id")
        if (old.owner, old.endpoint) != (new.owner, new.endpoint):
            detail = f"{old.release_id} is of {old.owner}/{old.endpoint}, {new.release_id} of {new.owner}/{new.endpoint}"
            raise RequestError(400, "validation", f"{detail}; expected two releases of one endpoint")
        found = changes(self._registry.manifest(old.release_id), self._registry.manifest(new.release_id))
        body = {"from": old.release_id, "to": new.release_id, "breaking": any(change.breaking for change in found), "changes": found}
        await request.answer(200, msgspec.json.encode(body))

    async def tags(self, request: Request) -> None:
        """`GET /v1/tags[?owner=&endpoint=&function=]`."""
        query = request.query()
        function = query.get("function", "")
        found = self._registry.tags(caller_of(request).own(query.get("owner", "")), query.get("endpoint", ""))
        await request.answer(200, msgspec.json.encode({"data": [self._shown_tag(tag) for tag in found if function in ("", tag.function)]}))

    async def tag(self, request: Request) -> None:
        """`GET /v1/endpoints/{owner}/{endpoint}/functions/{function}/tags/{tag}`: where it points, and its earlier releases."""
        parts = request.parts
        names = parts["owner"], parts["endpoint"], parts["function"], parts["tag"]
        self._check_owner(request)
        try:
            self._registry.resolve(*names)
        except NotFoundError as exc:
            raise RequestError(404, "not_found", str(exc), error="unknown_release") from None
        history = await asyncio.to_thread(self._registry.history, *names)
        body = {**self._shown_tag(history[0]), "history": [self._shown_past(each) for each in history]}
        await request.answer(200, msgspec.json.encode(body))

    async def move(self, request: Request) -> None:
        """`PUT /v1/endpoints/{owner}/{endpoint}/functions/{function}/tags/{tag}`."""
        parts = request.parts
        names = parts["owner"], parts["endpoint"], parts["function"], parts["tag"]
        self._check_owner(request)
        if not is_tag(parts["tag"]):
            raise RequestError(400, "validation", str(TagNameError(parts["tag"])), error="invalid_tag")
        try:
            wanted = msgspec.convert(read_json(await request.body(MAX_BODY_BYTES)), MoveTag)
        except JsonError as exc:
            raise refused(exc, "the body") from None
        except msgspec.ValidationError as exc:
            raise RequestError(400, "validation", f'{exc}; expected {{"release_id": "...", "expected": "..."}}') from None
        if not caller_of(request).sees(self._owner_of(wanted.release_id)):
            raise RequestError(404, "not_found", f"no release {wanted.release_id[:100]!r}", error="unknown_release")
        try:
            before = await asyncio.to_thread(self._check_move, *names, wanted)
            if wanted.canary == 0:  # this sends no callers to the release, so nothing of it is checked
                await self._end_canary(request, before, wanted)
                return
            if not wanted.breaking:
                await asyncio.to_thread(self._check_callers, *names, wanted.release_id)
            if not wanted.now:
                await while_waited_for(request, self._be_ready(wanted.release_id))
            if not wanted.skip_gates and (before is None or before.release_id != wanted.release_id):
                await while_waited_for(request, pass_goldens(self._goldens, wanted.release_id, [parts["function"]]))
            if wanted.dry_run:
                shown = {**dict(zip(_NAMES, names, strict=True)), "release_id": "", "version": 0, "moved_at": 0.0}
                await request.answer(200, msgspec.json.encode(before or shown))
                return
            if wanted.canary is not None and wanted.canary < 100:
                await self._canary(request, before, wanted, wanted.canary)
                return
            tag = await asyncio.to_thread(lambda: self._registry.move(*names, wanted.release_id, expected=wanted.expected))
        except NotFoundError as exc:
            raise RequestError(404, "not_found", str(exc), error="unknown_release") from None
        except TagMovedError as exc:
            raise RequestError(409, "conflict", str(exc)) from None
        subject = f"{tag.endpoint}/{tag.function}:{tag.tag}"
        await asyncio.to_thread(
            self._keys.note, caller_of(request), tag.owner, "tag.moved", subject, f"{tag.release_id}, move {tag.version}"
        )
        self._on_tag_moved(tag)
        await request.answer(200, msgspec.json.encode(tag))

    async def _canary(self, request: Request, tag: Tag | None, wanted: MoveTag, percent: float) -> None:
        if tag is None or tag.release_id == wanted.release_id:
            why = "it does not exist yet" if tag is None else f"it points at {tag.release_id} already"
            raise RequestError(409, "conflict", f"the tag has no canary: {why}")
        await asyncio.to_thread(self._registry.set_candidate, tag, wanted.release_id, percent)
        await self._say_canary(request, tag, wanted.release_id, percent)

    async def _end_canary(self, request: Request, tag: Tag | None, wanted: MoveTag) -> None:
        parts = request.parts
        candidate = self._registry.candidate(parts["owner"], parts["endpoint"], parts["function"], parts["tag"])
        if tag is None or candidate is None or candidate.release_id != wanted.release_id:
            subject = f"{parts['endpoint']}/{parts['function']}:{parts['tag']}"
            raise RequestError(409, "conflict", f"{wanted.release_id} is not a candidate of {subject}")
        if wanted.dry_run:
            await request.answer(200, msgspec.json.encode(tag))
            return
        await asyncio.to_thread(self._registry.drop_candidate, candidate)
        await self._say_canary(request, tag, wanted.release_id, 0)

    async def _say_canary(self, request: Request, tag: Tag, release_id: str, percent: float) -> None:
        subject, detail = f"{tag.endpoint}/{tag.function}:{tag.tag}", f"{release_id} {percent:g}%"
        await asyncio.to_thread(self._keys.note, caller_of(request), tag.owner, "tag.canary", subject, detail)
        self._on_tag_moved(msgspec.structs.replace(tag, release_id=release_id))
        await request.answer(200, msgspec.json.encode(self._shown_tag(tag)))

    def _shown_past(self, tag: Tag) -> dict[str, Any]:
        at = self._registry.deleted_at(tag.release_id)
        return msgspec.structs.asdict(tag) | ({"deleted_at": at} if at else {})

    def _shown_tag(self, tag: Tag) -> dict[str, Any]:
        candidate = self._registry.candidate(tag.owner, tag.endpoint, tag.function, tag.tag)
        shown = msgspec.structs.asdict(tag)
        if candidate is not None:
            shown["candidate"] = {name: getattr(candidate, name) for name in ("release_id", "percent", "since")}
        return shown

    async def _be_ready(self, release_id: str) -> None:
        """Make a worker of the release ready before callers come to it. If it cannot start, the tag stays."""
        why = await self._prepare(release_id)
        if why:
            raise RequestError(
                409,
                "release_not_ready",
                f"{release_id} cannot serve: {why}",
                hint='the tag stays; to move it anyway, send "now": true',
                cli_hint="the tag stays; to move it anyway, repeat the command with --now",
            )

    def _check_move(self, owner: str, endpoint: str, function: str, tag: str, wanted: MoveTag) -> Tag | None:
        """Where the tag points now. Raises the errors of the move itself, so that nothing is started for an impossible move."""
        self._registry.resolve(owner, endpoint, function, f"@{wanted.release_id}")
        now = next(iter(self._registry.history(owner, endpoint, function, tag)), None)
        if wanted.expected is not None and wanted.expected != (now.release_id if now else ""):
            raise TagMovedError(now)
        return now

    def _check_callers(self, owner: str, endpoint: str, function: str, tag: str, release_id: str) -> None:
        history = self._registry.history(owner, endpoint, function, tag)
        if not history or any(each.release_id == release_id for each in history):
            return
        old, new = (self._entry(each, function) for each in (history[0].release_id, release_id))
        if old is None or new is None:
            return  # the move itself reports the missing function
        breaking = [change for change in function_changes(old, new) if change.breaking]
        if breaking:
            raise RequestError(
                409,
                "breaking_change",
                f"{release_id} breaks callers of {owner}/{endpoint}/{function}:{tag}: {_told(breaking)}",
                hint='to move the tag anyway, send "breaking": true',
                cli_hint="to move the tag anyway, repeat the command with --breaking",
                errors=[FieldError(each.pointer, f"{each.side}: {each.text}") for each in breaking],
            )

    def _entry(self, release_id: str, function: str) -> FunctionEntry | None:
        entries = self._registry.manifest(release_id).callables
        return next((entry for entry in entries if entry.name == function), None)

    def release_of(self, request: Request, part: str) -> Release:
        """The release in this part of a path, even a deleted one; `RequestError` 404."""
        release_id, caller = request.parts[part], caller_of(request)
        known = [release.release_id for release in self._registry.releases(caller.own())]
        if release_id not in known and release_id not in [release.release_id for release in self._registry.deleted(caller.own())]:
            raise absent("release", release_id[:100], known, "cozyctl releases", "unknown_release")
        return self._registry.release(release_id)

    def _owner_of(self, release_id: str) -> str:
        try:
            return self._registry.release(release_id).owner
        except NotFoundError:
            return ""

    def _check_owner(self, request: Request) -> None:
        owner = request.parts["owner"]
        if not caller_of(request).sees(owner):
            raise no_owner(owner, caller_of(request))

    def _shown(self, release: Release) -> dict[str, Any]:
        deleted = {"deleted_at": release.deleted_at} if release.deleted_at else {}
        return deleted | {
            "release_id": release.release_id,
            "owner": release.owner,
            "endpoint": release.endpoint,
            "source": release.source,
            "created_at": release.created_at,
            "message": release.message,
            "functions": [entry.name for entry in self._registry.manifest(release.release_id).callables],
        }


def _told(breaking: list[Change]) -> str:
    told = "; ".join(f"{each.side} {each.pointer or 'as a whole'}: {each.text}" for each in breaking[:5])
    return told + (f"; and {len(breaking) - 5} more" if len(breaking) > 5 else "")
