"""The routes of the OpenAI API."""

from typing import Any

import msgspec

from gen_worker.front_doors.catalog import Catalog, Target
from gen_worker.front_doors.files import Files
from gen_worker.front_doors.openai.audio import AudioDoor
from gen_worker.front_doors.openai.chat import ChatDoor
from gen_worker.front_doors.openai.embeddings import EmbeddingsDoor
from gen_worker.front_doors.openai.errors import error_body, error_headers
from gen_worker.front_doors.openai.images import ImagesDoor
from gen_worker.front_doors.runs import ProblemError, Runs
from gen_worker.http.asgi import JSON, Handler, Request, RequestError

Routes = list[tuple[str, str, Handler]]


class ModelList:
    """Handlers of `/v1/models` in the OpenAI API's format: the functions that declare a task."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    async def list(self, request: Request) -> None:
        """`GET /v1/models`."""
        data = [_shown(target) for target in self._catalog.all(request) if target.task]
        await request.answer(200, msgspec.json.encode({"object": "list", "data": data}))

    async def get(self, request: Request) -> None:
        """`GET /v1/models/{model}`."""
        name = "/".join(request.parts.values())
        target = self._catalog.find(request, name)
        if not target.task:
            raise RequestError(404, "not_found", f"{name[:200]!r} declares no task", error="unknown_function")
        await request.answer(200, msgspec.json.encode(_shown(target)))


def openai_routes(catalog: Catalog, runs: Runs, files: Files) -> Routes:
    """Routes that start runs."""
    chat, audio = ChatDoor(catalog, runs), AudioDoor(catalog, runs, files)
    routes: Routes = [
        ("POST", "/v1/chat/completions", chat.chat),
        ("POST", "/v1/completions", chat.completion),
        ("POST", "/v1/embeddings", EmbeddingsDoor(catalog, runs).create),
        ("POST", "/v1/images/generations", ImagesDoor(catalog, runs, files).generate),
        ("POST", "/v1/audio/transcriptions", audio.transcribe),
        ("POST", "/v1/audio/speech", audio.speak),
    ]
    return [(method, path, _answered(handler)) for method, path, handler in routes]


def _answered(handler: Handler) -> Handler:
    """The handler; failed runs are answered in the OpenAI API's format."""

    async def answered(request: Request) -> None:
        try:
            await handler(request)
        except ProblemError as exc:
            await request.answer(exc.problem.status, error_body(exc.problem), JSON, error_headers(exc.problem, exc.headers))

    return answered


def _shown(target: Target) -> dict[str, Any]:
    return {"id": target.name, "object": "model", "created": target.created, "owned_by": target.owner, "task": target.task}
