"""The file API for workers: what a run saves and reads with its token."""

import asyncio

import msgspec

from gen_orchestrator.api.access import bearer_of
from gen_orchestrator.api.blob_bodies import check_may_change, not_kept, not_read, send_blob, take_body
from gen_orchestrator.domain.access import Caller
from gen_orchestrator.hub.blobs import KeptFile
from gen_orchestrator.hub.files import MODELS_OF, FileToken, FileTokens, NotLeadingError, RunFiles, Saving
from gen_orchestrator.hub.uploads import Uploads
from gen_worker.contract.files import SHA256_HEADER, SIZE_HEADER, TYPE_HEADER, SavedFile
from gen_worker.http.asgi import Request, RequestError
from gen_worker.http.files import is_conditional

MAX_COUNTED = 10_000  # attempts whose bytes are counted before the finished ones are forgotten
MAX_FILE_BYTES = 16 << 30


class FileRoutes:
    """Handlers of `/api/v1/file/{ref}`."""

    def __init__(self, files: RunFiles, tokens: FileTokens, uploads: Uploads, budget_bytes: int) -> None:
        """`budget_bytes`: how much one attempt of a run may save."""
        self._files = files
        self._tokens = tokens
        self._uploads = uploads
        self._budget_bytes = budget_bytes
        self._spent: dict[FileToken, int] = {}  # bytes by active attempt

    async def put(self, request: Request) -> None:
        """Create or replace a file of this attempt."""
        await self._save(request, create=False)

    async def post(self, request: Request) -> None:
        """Create a file of this attempt; 409 when it exists."""
        await self._save(request, create=True)

    async def read(self, request: Request) -> None:
        """A file of the run's owner: of this attempt, an upload, or of a successful run. For HEAD, its facts."""
        token, ref = self._token(request), request.parts["ref"]
        if token.run_id == MODELS_OF:
            raise RequestError(403, "auth", "this token is for models; read files with a run's own file_token")
        try:
            found = await asyncio.to_thread(self._find, token, ref)
        except OSError as exc:
            raise not_read(exc, None, self._files.blobs) from None
        if found is None:
            raise RequestError(404, "not_found", f"no file {ref[:200]!r}", error="unknown_file")
        headers = {TYPE_HEADER: found.mime_type, SIZE_HEADER: str(found.size_bytes), SHA256_HEADER: found.sha256}
        await send_blob(request, self._files.blobs, found, {**headers, "content-type": found.mime_type})

    def _find(self, token: FileToken, ref: str) -> KeptFile | None:
        return self._files.find_own(token, ref) or self._uploads.find(token.owner, ref) or self._files.find(token.owner, ref)

    async def _save(self, request: Request, *, create: bool) -> None:
        token = self._token(request)
        ref = request.parts["ref"]
        self._check_open(token)
        if len(self._spent) > MAX_COUNTED:
            self._spent = {each: spent for each, spent in list(self._spent.items()) if self._files.is_open(each)}
        is_new_only = request.header(b"if-none-match").strip() == "*"
        saving: Saving | None = None
        try:
            saving = await asyncio.to_thread(self._files.saving, token, ref)
            write = saving.write

            def within_budget(data: bytes) -> None:
                self._spend(token, len(data))
                write(data)

            await take_body(request, MAX_FILE_BYTES, within_budget)
            await asyncio.to_thread(saving.keep)
            if is_conditional(request):
                check_may_change(request, ref, await asyncio.to_thread(self._find, token, ref))
            # On the loop, where runs end: no attempt can end between this check and the rename.
            self._check_open(token)
            kept = saving.publish(create=create or is_new_only)
        except ValueError as exc:
            raise RequestError(400, "validation", str(exc)) from None
        except OSError as exc:
            raise not_kept(exc, f"{ref[:200]!r} was not saved") from None
        finally:
            if saving is not None:
                await asyncio.to_thread(saving.drop)
        if kept is None and not create:
            raise RequestError(412, "precondition_failed", f"{ref[:200]!r} exists; nothing was changed")
        if kept is None:
            raise RequestError(409, "conflict", f"{ref[:200]!r} exists; save it under another name, or overwrite it", error="exists")
        await request.answer(200, msgspec.json.encode(SavedFile(ref, kept.size_bytes, kept.sha256, kept.mime_type)))

    def _spend(self, token: FileToken, size_bytes: int) -> None:
        spent = self._spent[token] = self._spent.get(token, 0) + size_bytes
        if spent > self._budget_bytes:
            detail = f"attempt {token.attempt} of run {token.run_id} has saved more than the {self._budget_bytes} bytes that it may save"
            raise RequestError(413, "too_large", f"{detail} (GEN_ORCHESTRATOR_RUN_BYTES)")

    def _check_open(self, token: FileToken) -> None:
        try:
            is_open = self._files.is_open(token)
        except NotLeadingError:  # temporary: the worker tries again, and the next leader knows the attempt
            raise RequestError(503, "not_ready", "this node no longer leads; try again", headers={"retry-after": "1"}) from None
        if not is_open:
            detail = f"attempt {token.attempt} of run {token.run_id} has ended: its file_token is no longer valid, and its files are final"
            raise RequestError(403, "auth", detail, error="sealed")

    def _token(self, request: Request) -> FileToken:
        token = self._tokens.verify(bearer_of(request))
        if token is None:
            raise RequestError(401, "auth", "the file token is not accepted")
        return token


def worker_of(tokens: FileTokens, request: Request) -> Caller | None:
    """A worker, recognised by the token with which it asks for models or saves files."""
    token = tokens.verify(bearer_of(request))
    return Caller(token.owner, (), f"run:{token.run_id}") if token is not None else None
