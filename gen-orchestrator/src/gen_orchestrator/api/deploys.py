"""The routes of the public `cozyctl`: log in, upload an archive, build it, follow its log, deploy it.

Its deploy moves traffic at once, so here it is a promote of `prod` for all functions of the build's release. A
deployment is an endpoint. Its active build is the one whose release is the target of its functions' `prod`. Errors have
`error` and `message` besides the members of our problems. A user without a password logs in with the owner's name, and
a key as the password.
"""

import asyncio
import re
from pathlib import Path
from typing import Any

import msgspec

from gen_orchestrator.api.access import caller_of
from gen_orchestrator.api.blob_bodies import not_kept
from gen_orchestrator.api.envelope import refused
from gen_orchestrator.api.gates import pass_goldens
from gen_orchestrator.api.json_bodies import JsonError, read_json
from gen_orchestrator.api.waiting_callers import while_waited_for
from gen_orchestrator.auth.keys import Keys
from gen_orchestrator.domain.access import ALL_OWNERS, Caller
from gen_orchestrator.gates.goldens import Goldens
from gen_orchestrator.hub.builders import is_image
from gen_orchestrator.hub.builds import Build, Builds, QueueFullError
from gen_orchestrator.hub.registry import PROD, NotFoundError, Registry, TagMovedError
from gen_worker.clock import utc_text
from gen_worker.http.asgi import BodyReader, Request, RequestError
from gen_worker.names import did_you_mean

MAX_ARCHIVE_BYTES = 256 << 20
MAX_BODY_BYTES = 64 << 10
TOKEN_LIFE_S = 365 * 24 * 3600
ARCHIVES = re.compile(r"builds/([A-Za-z0-9][A-Za-z0-9._-]{0,127})/([0-9]{1,20})\.tar\.gz")
_STATUSES = {"succeeded": "success"}


class _Login(msgspec.Struct):
    login: str
    password: str


class _NewBuild(msgspec.Struct):
    tarball_path: str


class _Deploy(msgspec.Struct):
    build_id: str
    tenant_id: str = ""


class DeployRoutes:
    """Handlers of `/api/v1/auth`, `/api/v1/builds`, `/api/v1/file/builds/...` and `/v1/deployments`."""

    def __init__(self, builds: Builds, registry: Registry, keys: Keys, goldens: Goldens, archives: Path, owner: str, on_moved: Any) -> None:
        self._goldens = goldens
        self._builds = builds
        self._registry = registry
        self._keys = keys
        self._archives = archives
        self._owner = owner
        self._on_moved = on_moved

    async def login(self, request: Request) -> None:
        """`POST /api/v1/auth/password/login`."""
        given = await self._body(request, _Login)
        caller = self._keys.verify(given.password)
        if caller is None or not caller.sees(given.login):
            raise RequestError(
                401, "auth", "no such owner, or the key is not the owner's: the password is a key (cz_...)", error="invalid_credentials"
            )
        body = {"access_token": given.password, "token_type": "Bearer", "expires_in": TOKEN_LIFE_S, "refresh_token": given.password}
        await request.answer(200, msgspec.json.encode(body), headers={"cache-control": "no-store"})

    async def me(self, request: Request) -> None:
        """`GET /api/v1/auth/me`: the tenant that the key belongs to."""
        owner = self._owner_of(caller_of(request))
        await request.answer(200, msgspec.json.encode({"id": owner, "name": owner}))

    async def user(self, request: Request) -> None:
        """`GET /api/v1/auth/user/me`."""
        caller = caller_of(request)
        owner = self._owner_of(caller)
        await request.answer(200, msgspec.json.encode({"id": caller.name, "username": owner, "email": ""}))

    async def put_archive(self, request: Request) -> None:
        """`PUT /api/v1/file/builds/{project}/{nanoseconds}.tar.gz`."""
        place = self._archive(request, f"builds/{request.parts['project']}/{request.parts['name']}")
        new = place.with_suffix(".new")
        try:
            await asyncio.to_thread(lambda: place.parent.mkdir(parents=True, exist_ok=True))
            reader = BodyReader(request, MAX_ARCHIVE_BYTES)
            with new.open("wb") as file:
                while not reader.ended:
                    chunk = await reader.next_chunk()
                    if chunk:
                        await asyncio.to_thread(file.write, chunk)
            await asyncio.to_thread(new.replace, place)
        except OSError as exc:
            raise not_kept(exc, "the archive was not stored") from None
        finally:
            await asyncio.to_thread(lambda: new.unlink(missing_ok=True))
        await request.answer(201, msgspec.json.encode({"path": f"builds/{request.parts['project']}/{request.parts['name']}"}))

    async def build(self, request: Request) -> None:
        """`POST /api/v1/builds`: build an archive that was uploaded before."""
        given = await self._body(request, _NewBuild)
        archive = self._archive(request, given.tarball_path.removeprefix("/"))
        caller = caller_of(request)
        owner = self._owner_of(caller)
        try:
            build, path = await asyncio.to_thread(self._builds.reserve, owner, given.tarball_path)
        except QueueFullError:
            raise RequestError(429, "queue_full", "too many builds are already waiting", headers={"retry-after": "30"}) from None
        try:
            await asyncio.to_thread(archive.replace, path)
        except FileNotFoundError:
            await asyncio.to_thread(self._builds.drop, build)
            raise RequestError(
                404, "not_found", f"no archive {given.tarball_path[:200]!r}: upload it first", error="unknown_archive"
            ) from None
        await asyncio.to_thread(self._keys.note, caller, owner, "published", build.build_id, given.tarball_path)
        await self._builds.submit(build)
        await request.answer(201, msgspec.json.encode(_shown_build(build)))

    async def get_build(self, request: Request) -> None:
        """`GET /api/v1/builds/{build_id}`."""
        await request.answer(200, msgspec.json.encode(_shown_build(self._build(request, request.parts["build_id"]))))

    async def build_logs(self, request: Request) -> None:
        """`GET /api/v1/builds/{build_id}/logs?after_id=N&limit=N`."""
        build, query = self._build(request, request.parts["build_id"]), request.query()
        after = request.number(query.get("after_id", "0"), "after_id", 1 << 53)
        limit = request.number(query.get("limit", "1000"), "limit", 10_000)
        lines = (await self._builds.lines(build, after))[:limit]
        logs = [
            {"id": line.n, "build_id": build.build_id, "ts": utc_text(line.at), "level": "info", "phase": "build", "message": line.text}
            for line in lines
        ]
        await request.answer(200, msgspec.json.encode({"logs": logs, "count": len(logs)}))

    async def deploy(self, request: Request) -> None:
        """`POST /api/v1/builds/{build_id}/deploy`."""
        build = self._build(request, request.parts["build_id"])
        before = await self._promote(request, build)
        await request.answer(200, msgspec.json.encode({**self._shown(build.owner, build.endpoint), "previous_build_id": before}))

    async def create(self, request: Request) -> None:
        """`POST /v1/deployments` with a build, and `PUT /v1/deployments/{deployment_id}`."""
        given = await self._body(request, _Deploy)
        build = self._build(request, given.build_id)
        name = request.parts.get("deployment_id", build.endpoint)
        if build.endpoint and name != build.endpoint:
            raise RequestError(409, "conflict", f"build {build.build_id} is of {build.endpoint}, not of {name[:100]}")
        before = await self._promote(request, build)
        body = {**self._shown(build.owner, build.endpoint), "previous_build_id": before}
        await request.answer(200 if request.scope["method"] == "PUT" else 201, msgspec.json.encode(body))

    async def list(self, request: Request) -> None:
        """`GET /v1/deployments`."""
        owner = caller_of(request).own()
        endpoints = sorted({(tag.owner, tag.endpoint) for tag in self._registry.tags(owner) if tag.tag == PROD})
        await request.answer(200, msgspec.json.encode({"items": [self._shown(*each) for each in endpoints]}))

    async def get(self, request: Request) -> None:
        """`GET /v1/deployments/{deployment_id}`, and `/api/v1/deployments/{deployment_id}`."""
        name, caller = request.parts["deployment_id"], caller_of(request)
        tags = [tag for tag in self._registry.tags(caller.own()) if tag.tag == PROD]
        found = next((tag for tag in tags if tag.endpoint == name), None)
        if found is None:
            near = did_you_mean(name[:100], {tag.endpoint for tag in tags})
            raise RequestError(404, "not_found", f"no deployment {name[:100]!r}.{near}", error="not_found")
        await request.answer(200, msgspec.json.encode(self._shown(found.owner, found.endpoint)))

    async def _promote(self, request: Request, build: Build) -> str | None:
        """Point `prod` of all functions at a build's release; returns the build that was active before."""
        if build.status != "succeeded":
            raise RequestError(409, "conflict", f"build {build.build_id} is {build.status}; only one that has succeeded can be deployed")
        caller = caller_of(request)
        if not caller.may("promote"):
            raise RequestError(403, "forbidden", f"this key may {', '.join(caller.scopes)}; a deploy needs the scope 'promote'")
        before = self._active_build(build.owner, build.endpoint)
        functions = self._registry.manifest(build.release_id).callables
        await while_waited_for(request, pass_goldens(self._goldens, build.release_id, [entry.name for entry in functions]))
        for entry in functions:
            names = build.owner, build.endpoint, entry.name, PROD
            try:
                tag = await asyncio.to_thread(self._registry.move, *names, build.release_id)
            except (NotFoundError, TagMovedError) as exc:
                raise RequestError(409, "conflict", str(exc)) from None
            subject = f"{tag.endpoint}/{tag.function}:{tag.tag}"
            await asyncio.to_thread(self._keys.note, caller, tag.owner, "tag.moved", subject, f"{tag.release_id}, move {tag.version}")
            self._on_moved(tag)
        return before

    def _active_build(self, owner: str, endpoint: str) -> str | None:
        releases = {tag.release_id for tag in self._registry.tags(owner, endpoint) if tag.tag == PROD}
        found = [build for build in self._builds.newest_first(owner) if build.release_id in releases]
        return found[0].build_id if found else None

    def _shown(self, owner: str, endpoint: str) -> dict[str, Any]:
        tags = [tag for tag in self._registry.tags(owner, endpoint) if tag.tag == PROD]
        release = self._registry.release(max(tags, key=lambda tag: tag.moved_at).release_id)
        manifest = self._registry.manifest(release.release_id)
        limits = self._registry.scaling(release.release_id)
        models = sorted({spec.ref for entry in manifest.entries for spec in manifest.models_of(entry.name).values()})
        return {
            "id": endpoint,
            "tenant_id": owner,
            "name": endpoint,
            "active_build_id": self._active_build(owner, endpoint),
            "previous_build_id": None,
            "image_url": release.source,
            "image_tag": release.release_id,
            "backend": "container" if is_image(release.source) else "process",
            "deployment_type": "worker",
            "function_requirements": [
                {"name": entry.name, "requires_gpu": bool(entry.resources.get("requires_gpu", False))} for entry in manifest.functions
            ],
            "supported_model_ids": models,
            "min_workers": limits.min,
            "max_workers": limits.max,
            "created_at": utc_text(release.created_at),
            "updated_at": utc_text(max(tag.moved_at for tag in tags)),
        }

    def _build(self, request: Request, build_id: str) -> Build:
        build = self._builds.get(build_id)
        if build is None or not caller_of(request).sees(build.owner):
            raise RequestError(404, "not_found", f"no build {build_id[:100]!r}", error="not_found")
        return build

    def _archive(self, request: Request, ref: str) -> Path:
        found = ARCHIVES.fullmatch(ref)
        if found is None:
            raise RequestError(400, "validation", f"{ref[:200]!r}: expected builds/<project>/<nanoseconds>.tar.gz", error="invalid_path")
        return self._archives / self._owner_of(caller_of(request)) / found[1] / f"{found[2]}.tar.gz"

    def _owner_of(self, caller: Caller) -> str:
        return self._owner if caller.owner == ALL_OWNERS else caller.owner

    async def _body(self, request: Request, kind: type[Any]) -> Any:
        try:
            return msgspec.convert(read_json(await request.body(MAX_BODY_BYTES)), kind)
        except JsonError as exc:
            raise refused(exc, "the body") from None
        except msgspec.ValidationError as exc:
            raise RequestError(400, "validation", str(exc), error="validation") from None


def _shown_build(build: Build) -> dict[str, Any]:
    return {
        "id": build.build_id,
        "tenant_id": build.owner,
        "deployment_id": build.endpoint or None,
        "status": _STATUSES.get(build.status, build.status),
        "tarball_path": build.message,
        "image_tag": build.release_id or None,
        "error_message": build.error or None,
        "started_at": utc_text(build.created_at),
        "finished_at": utc_text(build.finished_at) if build.finished_at else None,
        "created_at": utc_text(build.created_at),
        "updated_at": utc_text(build.finished_at or build.created_at),
    }
