"""The model hub over HTTP: pushing and listing models, and the routes by which workers resolve and download them."""

import asyncio

import msgspec

from gen_orchestrator.api.absent import absent
from gen_orchestrator.api.access import caller_of
from gen_orchestrator.api.blob_bodies import not_kept, take_body
from gen_orchestrator.api.plain_text import checked_text
from gen_orchestrator.domain.access import ALL_OWNERS, Caller
from gen_orchestrator.hub.mirror import OWNER as MIRROR_OWNER
from gen_orchestrator.hub.mirror import Mirror, MirrorBusyError, mirrored
from gen_orchestrator.hub.model_records import (
    DamagedStoreError,
    ModelFile,
    NoVariantError,
    PushError,
    Repo,
    UnknownModelError,
    Version,
    refusal_of,
)
from gen_orchestrator.hub.models import ModelStore
from gen_orchestrator.hub.signed_urls import SignedUrls
from gen_worker.contract.hub import ArtifactRequest, HubFile, ModelAnswer, ModelRequest, SnapshotManifest
from gen_worker.http.asgi import Request, RequestError
from gen_worker.http.files import send_file
from gen_worker.refs import CozyRef, HuggingFaceRef, parse_model_ref

MAX_LIST_BYTES = 16 << 20
MAX_BLOB_BYTES = 1 << 40
LOOPBACK = ("127.0.0.1", "::1")


class Push(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a push. `blake3` of a file in hexadecimal; `allow_unsafe`: also accept files that may run code when they are loaded."""

    files: tuple[ModelFile, ...]
    message: str = ""
    allow_unsafe: bool = False


class ModelRoutes:
    """Handlers of `/v1/repos`, `/v1/models/{owner}/{repo}`, `/v1/blobs`, and of the hub's routes for workers."""

    def __init__(self, store: ModelStore, urls: SignedUrls, mirror: Mirror | None = None) -> None:
        """`mirror` fetches requested models of Hugging Face; without one, only pushed models exist."""
        self._store = store
        self._urls = urls
        self._mirror = mirror

    async def list(self, request: Request) -> None:
        """`GET /v1/repos[?owner=]`."""
        repos = await asyncio.to_thread(self._store.repos, caller_of(request).own(request.query().get("owner", "")))
        await request.answer(200, msgspec.json.encode({"data": [_shown(repo) for repo in repos]}))

    async def get(self, request: Request) -> None:
        """`GET /v1/models/{owner}/{repo}`: tags, and each version that one of them points at, with its files."""
        name = self._name(request)
        repos = await asyncio.to_thread(self._store.repos, name.owner)
        repo = next((each for each in repos if each.repo == name.repo), None)
        if repo is None:
            raise self._absent(request, name.repo_id())
        digests = {digest for tag in repo.tags for digest in tag.versions.values()}
        versions = [await asyncio.to_thread(self._store.version, name, digest) for digest in sorted(digests)]
        changed = {each.digest: await asyncio.to_thread(self._store.changed_link, each) for each in versions}
        shown = [{**msgspec.to_builtins(each), "size_bytes": each.size_bytes, "changed_link": changed[each.digest]} for each in versions]
        body = {**_shown(repo), "versions": shown}
        await request.answer(200, msgspec.json.encode(body))

    async def push(self, request: Request) -> None:
        """`PUT /v1/models/{owner}/{repo}/tags/{tag}`: 200 with the version; 202 with the digests of blobs to send first."""
        name = self._name(request)
        try:
            wanted = msgspec.json.decode(await request.body(MAX_LIST_BYTES), type=Push)
            checked_text(wanted.message, "the message")
            if not wanted.allow_unsafe and (refusal := refusal_of(file.path for file in wanted.files)):
                raise PushError(refusal)  # before any byte is sent
            missing = await asyncio.to_thread(self._store.missing, wanted.files, caller_of(request).owner)
            if missing:
                near = {"inbox": await asyncio.to_thread(self._store.inbox.offer)} if _is_near(request) else {}
                await request.answer(202, msgspec.json.encode({"missing": missing, **near}))
                return
            version = await asyncio.to_thread(
                lambda: self._store.commit(
                    name.owner, name.repo, request.parts["tag"], wanted.files, message=wanted.message, allow_unsafe=wanted.allow_unsafe
                )
            )
        except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as exc:
            raise RequestError(400, "validation", str(exc)) from None
        await request.answer(200, msgspec.json.encode({"ref": f"cozy:{name.repo_id()}:{request.parts['tag']}", "version": version}))

    async def remove(self, request: Request) -> None:
        """`DELETE /v1/models/{owner}/{repo}[/tags/{tag}]`."""
        name = self._name(request)
        try:
            freed = await asyncio.to_thread(self._store.remove, name.owner, name.repo, request.parts.get("tag", ""))
        except UnknownModelError:
            tag = request.parts.get("tag", "")
            raise self._absent(request, name.repo_id() + (f":{tag}" if tag else "")) from None
        except PushError as exc:
            raise RequestError(400, "validation", str(exc)) from None
        await request.answer(200, msgspec.json.encode({"freed_bytes": freed}))

    async def put_blob(self, request: Request) -> None:
        """`PUT /v1/blobs/{digest}[?inbox=NAME&linked=true]`: receives a blob of a push in progress, or the name of a
        file in the inbox, which may be a hard link. 204 once it is stored.
        """
        digest = request.parts["digest"]
        if name := request.query().get("inbox", ""):
            await self._take_laid(request, digest, name)
            return
        try:
            saving = await asyncio.to_thread(self._store.receive, digest, caller_of(request).owner)
        except ValueError as exc:
            raise RequestError(400, "validation", str(exc)) from None
        try:
            await take_body(request, MAX_BLOB_BYTES, saving.write)
            if not await asyncio.to_thread(saving.finish):
                raise _another(digest)
        except OSError as exc:
            raise not_kept(exc, "the blob was not stored") from None
        finally:
            await asyncio.to_thread(saving.drop)
        await request.answer(204, b"")

    async def _take_laid(self, request: Request, digest: str, name: str) -> None:
        try:
            await request.body(0)
            linked = request.query().get("linked", "") == "true"
            owner = caller_of(request).owner
            taken = await asyncio.to_thread(lambda: self._store.take_laid(digest, name, linked=linked, owner=owner))
        except ValueError as exc:
            raise RequestError(400, "validation", str(exc)) from None
        except OSError as exc:
            raise not_kept(exc, "the blob was not stored") from None
        if not taken:
            raise _another(digest)
        await request.answer(204, b"")

    async def get_blob(self, request: Request) -> None:
        """`GET /v1/blobs/{digest}?until=&signature=`: a signed URL given to a worker."""
        if not self._urls.is_valid(request.scope["path"], request.query()):
            raise RequestError(403, "auth", "this URL is invalid or has expired: request the model again")
        try:
            path = self._store.blob_path(request.parts["digest"])
            if await asyncio.to_thread(self._store.is_changed, request.parts["digest"]):
                raise _changed("this file", "OWNER/REPO:TAG")
        except ValueError as exc:
            raise RequestError(400, "validation", str(exc)) from None
        await send_file(request, path, {})

    async def request_public(self, request: Request) -> None:
        """`POST /api/v1/public/models/request` of the hub's contract. Models of Hugging Face are those pushed as
        `hf/<org>--<name>`, and those fetched by the mirror: 202 while one is being fetched.
        """
        try:
            asked = msgspec.json.decode(await request.body(MAX_LIST_BYTES), type=ModelRequest)
            ref = parse_model_ref(asked.model_ref)
        except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as exc:
            raise RequestError(400, "validation", str(exc)) from None
        precisions = asked.constraints.dtypes
        if not isinstance(ref, HuggingFaceRef):
            await self._answer(request, ref, precisions)
            return
        try:
            await self._answer(request, mirrored(ref), precisions)
        except RequestError as exc:
            if exc.status == 404 and self._mirror is None:
                raise RequestError(403, "not_mirrored", f"{ref.canonical()} is not mirrored here") from None
            if exc.status not in (404, 409) or self._mirror is None:
                raise
            await self._ingest(request, self._mirror, ref, precisions)

    async def _ingest(self, request: Request, mirror: Mirror, ref: HuggingFaceRef, precisions: tuple[str, ...]) -> None:
        try:
            job = mirror.ask(ref, precisions)
        except ValueError as exc:
            raise RequestError(400, "validation", str(exc)) from None
        except MirrorBusyError as exc:
            raise RequestError(503, "not_ready", str(exc), headers={"retry-after": "10"}) from None
        if job.error:  # 403: the worker then tries Hugging Face itself, and learns there what is wrong
            raise RequestError(403, "not_mirrored", f"{ref.canonical()} could not be fetched: {job.error}")
        if job.digest:  # fetched between the two checks
            await self._answer(request, mirrored(ref), precisions)
            return
        body = {"ingest_job_id": job.id, "model_ref": ref.canonical(), "progress": job.progress.now()}
        await request.answer(202, msgspec.json.encode(body), headers={"retry-after": "1"})

    async def collect(self, request: Request) -> None:
        """`POST /v1/repos/gc`: remove unused blobs that are older than an hour. For operators."""
        if caller_of(request).owner != ALL_OWNERS:
            raise RequestError(403, "forbidden", "blobs belong to all owners together: use an operator's key (operator.key)")
        try:
            found = await asyncio.to_thread(self._store.collect)
        except DamagedStoreError as exc:
            raise RequestError(500, "damaged", str(exc)) from None
        await request.answer(200, msgspec.json.encode(found))

    async def resolve_artifact(self, request: Request) -> None:
        """`POST /api/v1/repos/{owner}/{repo}/resolve_artifact` of the hub's contract."""
        try:
            asked = msgspec.json.decode(await request.body(MAX_LIST_BYTES), type=ArtifactRequest)
        except (msgspec.DecodeError, UnicodeDecodeError) as exc:
            raise RequestError(400, "validation", str(exc)) from None
        name = self._name(request)
        try:
            ref = parse_model_ref(f"{name.repo_id()}:{asked.tag}")
        except ValueError as exc:
            raise RequestError(400, "validation", str(exc)) from None
        assert isinstance(ref, CozyRef)
        await self._answer(request, ref, asked.preferences.quantization_preference)

    async def snapshot(self, request: Request) -> None:
        """`GET /api/v1/repos/{owner}/{repo}/snapshots/{digest}/manifest` of the hub's contract."""
        try:
            found = await asyncio.to_thread(self._store.version, self._name(request), request.parts["digest"])
        except UnknownModelError as exc:
            raise RequestError(404, "not_found", str(exc), error="unknown_model") from None
        await request.answer(200, msgspec.json.encode(await self._manifest(found, self._name(request).repo_id())))

    async def _answer(self, request: Request, ref: CozyRef, precisions: tuple[str, ...]) -> None:
        if ref.owner != MIRROR_OWNER and not (caller := caller_of(request)).sees(ref.owner):  # mirrors of Hugging Face are readable by all
            raise _not_of(caller, ref.repo_id())
        try:
            found = await asyncio.to_thread(self._store.resolve, ref, precisions)
        except UnknownModelError as exc:
            raise RequestError(404, "not_found", str(exc), error="unknown_model") from None
        except NoVariantError as exc:
            raise RequestError(409, "no_variant", str(exc)) from None
        manifest = await self._manifest(found, ref.repo_id() if ref.digest is not None else f"{ref.repo_id()}:{ref.tag}")
        answer = msgspec.to_builtins(ModelAnswer(found.digest, manifest))
        extra = {
            "repo_revision_seq": max(1, int(found.pushed_at)),
            "variant_label": found.precision,
            "cozy_repo_ref": ref.canonical(),
            "owner": ref.owner,
            "repo": ref.repo,
            "tag": ref.tag,
        }
        await request.answer(200, msgspec.json.encode({**answer, **extra}))

    async def _manifest(self, version: Version, name: str) -> SnapshotManifest:
        """The files with fresh URLs. 410 instead of URLs of which one could only be refused."""
        if path := await asyncio.to_thread(self._store.changed_link, version):
            raise _changed(path, name)
        files = [
            HubFile(file.path, self._urls.sign(f"/v1/blobs/blake3:{file.blake3}"), size_bytes=file.size_bytes, blake3=file.blake3)
            for file in version.files
        ]
        return SnapshotManifest(files)

    def _absent(self, request: Request, name: str) -> RequestError:
        """404 for a model or a tag of one, with the nearest name that the caller may see."""
        repos = self._store.repos(caller_of(request).own())
        known = [f"{each.owner}/{each.repo}" + (f":{tag.tag}" if ":" in name else "") for each in repos for tag in each.tags]
        return absent("model", name, known, "cozyctl models hub", "unknown_model")

    def _name(self, request: Request) -> CozyRef:
        text = f"{request.parts['owner']}/{request.parts['repo']}"
        try:
            ref = parse_model_ref(text)
        except ValueError as exc:
            raise RequestError(400, "validation", str(exc)) from None
        if not isinstance(ref, CozyRef) or ref.repo_id() != text:
            raise RequestError(400, "validation", f"{text[:100]!r}: expected owner/repo")
        if not (caller := caller_of(request)).sees(ref.owner):
            raise _not_of(caller, text)
        return ref


def _not_of(caller: Caller, repo_id: str) -> RequestError:
    """404 for a model of another owner, whether it exists or not."""
    hint = f"this key is of owner {caller.owner}, whose models are called {caller.owner}/NAME"
    return RequestError(404, "not_found", f"no model {repo_id!r} here", hint=hint, error="unknown_model")


def _changed(path: str, name: str) -> RequestError:
    """410 for a file that its author has changed, so that its pushed bytes exist nowhere."""
    detail = f"{path} was pushed with --link and has changed since. Push the model again: cozyctl models push FOLDER {name}"
    return RequestError(410, "gone", detail, error="changed_link")


def _another(digest: str) -> RequestError:
    return RequestError(400, "validation", f"the received bytes are not {digest}: was the file changed while it was sent?")


def _is_near(request: Request) -> bool:
    """Whether the caller may be on this machine. The offer does not help a caller elsewhere, who cannot read the nonce."""
    client = request.scope.get("client")
    return client is not None and client[0] in LOOPBACK


def _shown(repo: Repo) -> dict[str, object]:
    return {"owner": repo.owner, "repo": repo.repo, "tags": [msgspec.to_builtins(tag) for tag in repo.tags]}
