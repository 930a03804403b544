"""Publishing over HTTP: takes a project's source, builds a release from it, and streams the build's log."""

import asyncio
from pathlib import Path

import msgspec

from gen_orchestrator.api.absent import absent
from gen_orchestrator.api.access import caller_of
from gen_orchestrator.api.blob_bodies import not_kept, take_body
from gen_orchestrator.api.plain_text import checked_text
from gen_orchestrator.auth.keys import Keys
from gen_orchestrator.domain.access import ALL_OWNERS
from gen_orchestrator.hub.builds import Build, Builds, QueueFullError
from gen_orchestrator.hub.image_builder import reference_problem
from gen_worker.http.asgi import Request, RequestError
from gen_worker.names import did_you_mean, is_run_id
from gen_worker.net.writing_out import WritingOut

MAX_ARCHIVE_BYTES = 256 << 20
MAX_MESSAGE_CHARACTERS = 2000
MAX_WAIT_S = 60
_ARCHIVES = ("application/gzip", "application/x-gzip", "application/x-tar+gzip", "application/octet-stream")


class BuildRoutes:
    """Handlers of `/v1/endpoints/publish` and `/v1/builds`. `owner` owns the releases when a request names none."""

    def __init__(self, builds: Builds, keys: Keys, owner: str) -> None:
        self._keys = keys
        self._builds = builds
        self._owner = owner

    async def publish(self, request: Request) -> None:
        """`POST /v1/endpoints/publish[?message=][&builder=][&image=]`: the body is a gzip tar of a project, or empty
        when an image is named. 202 with the build once it is queued durably.
        """
        query = request.query()
        message, builder, image = query.get("message", ""), query.get("builder", ""), query.get("image", "")
        try:
            checked_text(message, "the message")
        except ValueError as exc:
            raise RequestError(400, "validation", str(exc)) from None
        if len(message) > MAX_MESSAGE_CHARACTERS:
            raise RequestError(400, "validation", f"a message of {len(message)} characters; at most {MAX_MESSAGE_CHARACTERS}")
        if builder and builder not in self._builds.builders:
            near = did_you_mean(builder[:100], self._builds.builders)
            raise RequestError(400, "validation", f"no builder {builder[:100]!r}.{near} Builders: {', '.join(self._builds.builders)}")
        if image and (problem := reference_problem(image)):
            raise RequestError(400, "validation", problem)
        kind = request.header(b"content-type").partition(";")[0].strip().lower()
        if not image and kind not in _ARCHIVES:
            detail = f"content-type {kind[:60]!r}: send the project as a gzip tar, application/gzip"
            raise RequestError(415, "unsupported_media_type", detail, hint="cozyctl publish creates and sends one")
        caller = caller_of(request)
        owner = self._owner if caller.owner == ALL_OWNERS else caller.owner
        try:
            build, path = await asyncio.to_thread(self._builds.reserve, owner, message, "container" if image else builder, image)
        except QueueFullError:
            detail = "too many builds are already waiting; try again when one of them has ended"
            raise RequestError(429, "queue_full", detail, headers={"retry-after": "30"}) from None
        try:
            if not image:
                await self._receive(request, path)
            await asyncio.to_thread(self._keys.note, caller, owner, "published", build.build_id, image or message)
            await self._builds.submit(build)
        except BaseException as exc:
            await asyncio.shield(asyncio.to_thread(self._builds.drop, build))
            if isinstance(exc, OSError):
                raise not_kept(exc, "the archive was not stored") from None
            raise
        await request.answer(202, msgspec.json.encode(build), headers={"location": f"/v1/builds/{build.build_id}"})

    @staticmethod
    async def _receive(request: Request, path: Path) -> None:
        with path.open("xb") as file:
            await take_body(request, MAX_ARCHIVE_BYTES, WritingOut(file).write)

    async def list(self, request: Request) -> None:
        """`GET /v1/builds`: newest first."""
        await request.answer(
            200, msgspec.json.encode({"data": self._builds.newest_first(caller_of(request).own(request.query().get("owner", "")))})
        )

    async def get(self, request: Request) -> None:
        """`GET /v1/builds/{build_id}[?wait=n]`: waits up to n seconds for its end."""
        build, wait_s = self._build(request), self._number(request, "wait", MAX_WAIT_S)
        if wait_s:
            await self._builds.wait(build, -1, wait_s)
        await request.answer(200, msgspec.json.encode(build))

    async def logs(self, request: Request) -> None:
        """`GET /v1/builds/{build_id}/logs[?after=N&wait=n]`: lines after line N; when there are none, waits up to n seconds."""
        build = self._build(request)
        after, wait_s = self._number(request, "after", 1 << 53), self._number(request, "wait", MAX_WAIT_S)
        if wait_s:
            await self._builds.wait(build, after, wait_s)
        lines = await self._builds.lines(build, after)
        body = {"build_id": build.build_id, "status": build.status, "lines": lines, "next": after + len(lines)}
        await request.answer(200, msgspec.json.encode(body))

    async def cancel(self, request: Request) -> None:
        """`POST /v1/builds/{build_id}/cancel`."""
        build = self._build(request)
        await self._builds.cancel(build)
        await request.answer(200, msgspec.json.encode(build))

    def _number(self, request: Request, name: str, most: int) -> int:
        return request.number(request.query().get(name, "0"), name, most)

    def _build(self, request: Request) -> Build:
        build_id = request.parts["build_id"]
        build = self._builds.get(build_id) if is_run_id(build_id) else None
        caller = caller_of(request)
        if build is None or not caller.sees(build.owner):
            known = [each.build_id for each in self._builds.newest_first(caller.own())]
            raise absent("build", build_id[:100], known, "cozyctl builds list", "unknown_build")
        return build
