"""Files for callers: their uploads, outputs of their runs, and signed URLs that work without a key."""

import asyncio
from urllib.parse import quote

import msgspec

from gen_orchestrator.api.access import caller_of
from gen_orchestrator.api.blob_bodies import check_may_change, not_kept, not_read, send_blob, take_body
from gen_orchestrator.domain.access import ALL_OWNERS, Caller
from gen_orchestrator.hub.blobs import KeptFile
from gen_orchestrator.hub.files import RunFiles
from gen_orchestrator.hub.signed_urls import SignedUrls
from gen_orchestrator.hub.uploads import Incoming, QuotaError, TooLargeError, Upload, Uploads, exact_ref
from gen_worker.clock import utc_text
from gen_worker.contract.files import SHA256_HEADER
from gen_worker.durations import parse_duration
from gen_worker.http.asgi import Request, RequestError
from gen_worker.http.files import is_conditional

MAX_PAGE = 1000
MAX_SIGNED_S = 7 * 24 * 3600
SIGNED_METHODS = ("GET", "PUT", "POST", "DELETE")
_SHOWN_INLINE = ("image/png", "image/jpeg", "image/gif", "image/webp", "audio/", "video/", "text/plain")


class CallerFileRoutes:
    """Handlers of `/v1/files`."""

    def __init__(self, uploads: Uploads, files: RunFiles, urls: SignedUrls) -> None:
        self._uploads = uploads
        self._files = files
        self._urls = urls

    def signed(self, request: Request) -> Caller | None:
        """The owner, as the caller of this one request, if it has a signed URL; None when it is not signed.
        `RequestError` 403 when the signature is invalid or has expired.
        """
        query = request.query()
        if "signature" not in query:
            return None
        if "sign" in query or not self._urls.is_valid(request.scope["path"], query, request.scope["method"]):
            raise RequestError(403, "auth", "this URL is invalid or has expired: get a new one from its author")
        return Caller(request.parts["owner"], ("invoke",), "signed")

    async def list(self, request: Request) -> None:
        """`GET /v1/files[?prefix=&cursor=&limit=&owner=]`: uploads, by ref."""
        query = request.query()
        limit = request.number(query.get("limit", "100"), "limit", MAX_PAGE)
        if not limit:
            raise RequestError(400, "validation", f"limit=0; expected a whole number from 1 to {MAX_PAGE}")
        owner = caller_of(request).own(query.get("owner", ""))
        after_owner, _, after_ref = query.get("cursor", "").partition("/")
        try:
            owners = [owner] if owner else await asyncio.to_thread(self._uploads.owners)
            page, more = await asyncio.to_thread(
                self._uploads.page, owners, query.get("prefix", "").lstrip("/"), (after_owner, after_ref), limit
            )
        except ValueError as exc:
            raise RequestError(400, "validation", str(exc)) from None
        cursor = f"{page[-1].owner}/{page[-1].ref}" if more else None
        await request.answer(200, msgspec.json.encode({"data": [shown(upload) for upload in page], "next_cursor": cursor}))

    async def get(self, request: Request) -> None:
        """`GET /v1/files/{owner}/{ref}`: an upload, or an output of a successful run; with `?sign=TIME[&method=]` a signed URL for it."""
        owner, ref = self._place(request)
        if "sign" in request.query():
            await self._sign(request)
            return
        found = await self._find(owner, ref)
        if found is None:
            raise _unknown(owner, ref)
        kind = found.mime_type
        headers = {"content-type": kind, "x-content-type-options": "nosniff", "content-security-policy": "sandbox"}
        if not kind.startswith(_SHOWN_INLINE):
            headers["content-disposition"] = "attachment"
        headers[SHA256_HEADER] = found.sha256
        await send_blob(request, self._files.blobs, found, headers)

    async def put(self, request: Request) -> None:
        """`PUT /v1/files/{owner}/{ref}`: create or replace an upload."""
        await self._take(request, create=False)

    async def post(self, request: Request) -> None:
        """`POST /v1/files/{owner}/{ref}`: create an upload; 409 when it exists."""
        await self._take(request, create=True)

    async def remove(self, request: Request) -> None:
        """`DELETE /v1/files/{owner}/{ref}`."""
        owner, ref = self._place(request)
        try:
            exact_ref(ref)
        except ValueError as exc:
            raise RequestError(400, "validation", str(exc)) from None
        removed = await asyncio.to_thread(self._uploads.remove, owner, ref, lambda found: check_may_change(request, ref, found))
        if removed is None:
            raise _unknown(owner, ref)
        await request.answer(200, msgspec.json.encode(shown(removed)))

    async def _take(self, request: Request, *, create: bool) -> None:
        owner, ref = self._place(request)
        declared = request.header(b"content-length")
        size_bytes = int(declared) if declared.isascii() and declared.isdigit() and len(declared) < 20 else 0
        incoming: Incoming | None = None
        output: KeptFile | None = None  # of a run; an upload hides it

        def check(present: Upload | None) -> None:
            check_may_change(request, ref, present or output)

        try:
            exact_ref(ref)
            if create and await asyncio.to_thread(self._uploads.find, owner, ref) is not None:
                raise _exists(ref)  # before gigabytes arrive
            if is_conditional(request):
                output = await asyncio.to_thread(self._files.find, owner, ref)
                check(await asyncio.to_thread(self._uploads.find, owner, ref))
            incoming = await asyncio.to_thread(lambda: self._uploads.receive(owner, ref, create=create, declared_bytes=size_bytes))
            await take_body(request, self._uploads.limits.file_bytes, incoming.write)
            sha256 = await asyncio.to_thread(incoming.keep)
            upload, old = self._uploads.publish(incoming, sha256, create=create, check=check)
            if old:
                await asyncio.to_thread(self._uploads.blobs.delete, old)
        except TooLargeError as exc:
            raise RequestError(413, "too_large", f"{ref[:200]!r}: {exc}") from None
        except QuotaError as exc:
            raise RequestError(507, "quota", str(exc), headers={"connection": "close"}) from None
        except ValueError as exc:
            raise RequestError(400, "validation", str(exc)) from None
        except OSError as exc:
            raise not_kept(exc, f"{ref[:200]!r} was not stored") from None
        finally:
            if incoming is not None:
                await asyncio.to_thread(incoming.drop)
        if upload is None:
            raise _exists(ref)
        await request.answer(201 if create else 200, msgspec.json.encode(shown(upload)))

    async def _sign(self, request: Request) -> None:
        query = request.query()
        owner, ref = request.parts["owner"], request.parts["ref"]
        method = query.get("method", "GET")
        try:
            life_s = parse_duration(query["sign"])
        except ValueError as exc:
            raise RequestError(400, "validation", f"sign: {exc}") from None
        if method not in SIGNED_METHODS or life_s > MAX_SIGNED_S:
            raise RequestError(400, "validation", f"sign: at most {MAX_SIGNED_S // 86400}d; method: one of {', '.join(SIGNED_METHODS)}")
        if method != "GET" and not caller_of(request).may("invoke"):
            raise RequestError(403, "forbidden", f"a URL for {method} needs a key with the scope 'invoke'")
        if method != "GET":
            try:
                exact_ref(ref)
            except ValueError as exc:
                raise RequestError(400, "validation", str(exc)) from None
        if method == "GET" and await self._find(owner, ref) is None:
            raise _unknown(owner, ref)
        path, until = self._urls.signed_path(f"/v1/files/{owner}/{ref}", life_s, method)
        base = f"{request.scope.get('scheme', 'http')}://{request.header(b'host')}"
        body = {"url": base + path, "method": method, "expires_at": utc_text(until)}
        await request.answer(200, msgspec.json.encode(body), headers={"cache-control": "no-store"})

    async def _find(self, owner: str, ref: str) -> KeptFile | None:
        try:
            return await asyncio.to_thread(lambda: self._uploads.find(owner, ref) or self._files.find(owner, ref))
        except OSError as exc:
            raise not_read(exc, None, self._files.blobs) from None

    def _place(self, request: Request) -> tuple[str, str]:
        """The owner and ref of a request. `RequestError` 404 for an owner that the caller may not see, 403 for an expired URL."""
        self.signed(request)  # even when no keys are required
        owner, ref = request.parts["owner"], request.parts["ref"]
        if not caller_of(request).sees(owner) or owner == ALL_OWNERS:
            raise _unknown(owner, ref)
        return owner, ref


def shown(upload: Upload) -> dict[str, object]:
    """An upload as callers see it."""
    return {
        "ref": upload.ref,
        "owner": upload.owner,
        "size_bytes": upload.size_bytes,
        "sha256": upload.sha256,
        "mime_type": upload.mime_type,
        "created_at": utc_text(upload.created_at),
        "expires_at": utc_text(upload.expires_at) if upload.expires_at else None,
        "url": f"/v1/files/{upload.owner}/{quote(upload.ref)}",
    }


def _exists(ref: str) -> RequestError:
    return RequestError(409, "conflict", f"{ref[:200]!r} exists; choose another name, or replace it with PUT", error="exists")


def _unknown(owner: str, ref: str) -> RequestError:
    return RequestError(404, "not_found", f"no file {ref[:200]!r} of {owner[:64]!r}", hint="See: cozyctl files list", error="unknown_file")
