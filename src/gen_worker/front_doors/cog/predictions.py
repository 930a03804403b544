"""A run, as a prediction."""

import base64
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from gen_worker.contract.problem import Problem
from gen_worker.front_doors.files import Files, base_of, link
from gen_worker.front_doors.runs import File
from gen_worker.http.asgi import Request

INLINE_BYTES = 8 << 20  # of a file that stands in the answer itself, where the client could not tell its http address from a text
STATUSES = {"queued": "starting", "starting": "starting", "running": "processing", "expired": "failed"}


class SeenRun(msgspec.Struct, frozen=True):
    """A run object, of the dev runner or of the platform. Times are RFC 3339."""

    id: str
    status: str
    created_at: str
    function: str = ""
    owner: str = ""
    endpoint: str = ""
    tag: str = ""
    output: Any = None
    input: Any = None
    files: list[File] | None = None
    error: Problem | None = None
    timings: dict[str, int | None] = {}
    started_at: str | None = None
    finished_at: str | None = None

    @property
    def is_over(self) -> bool:
        return self.finished_at is not None or self.status in ("succeeded", "failed", "canceled", "expired")

    @property
    def function_name(self) -> str:
        """The name by which a catalog knows its function."""
        return f"{self.owner}/{self.endpoint}/{self.function}:{self.tag}" if self.owner else self.function


class Said(msgspec.Struct):
    """What a run has given and logged so far."""

    outputs: list[Any] = []
    logs: list[str] = []


async def prediction_of(request: Request, run: SeenRun, said: Said, files: Files, *, streams: bool, given: Any = None) -> dict[str, Any]:
    """The prediction that a run is. `given`: its input, where the run object does not show it.

    An output of one field is that field's value, since cog's functions give plain values; of several fields it is an object.
    """
    output = [plain(each) for each in said.outputs] if streams else plain(run.output)
    base = base_of(request)
    prefix = "/v1" if request.scope["path"].startswith("/v1/") else ""
    here = f"{base}{prefix}/predictions/{run.id}"
    inference_ms = run.timings.get("inference_ms") or run.timings.get("total_ms")
    return {
        "id": run.id,
        "model": f"{run.owner}/{run.endpoint}" if run.owner else run.function,
        "version": run.function_name,
        "status": STATUSES.get(run.status, run.status),
        "input": run.input if run.input is not None else given,
        "output": await with_files(output, run.files or [], lambda file: _told(request, file, files)) if output not in (None, []) else None,
        "error": run.error.detail if run.error is not None else None,
        "logs": "".join(f"{line}\n" for line in said.logs),
        "metrics": {"predict_time": inference_ms / 1000} if run.is_over and inference_ms is not None else {},
        "created_at": run.created_at,
        "started_at": run.started_at,
        "completed_at": run.finished_at,
        "urls": {"get": here, "cancel": f"{here}/cancel"},
    }


def plain(output: Any) -> Any:
    """The value of an output of one field; any other output as it is."""
    return next(iter(output.values())) if isinstance(output, dict) and len(output) == 1 else output


async def with_files(value: Any, files: list[File], told: Callable[[File], Awaitable[str]]) -> Any:
    """The value with a text in the place of each saved file."""
    if isinstance(value, dict):
        file = next((each for each in files if each.ref == value.get("ref")), None)
        if file is not None:
            return await told(file)
        return {name: await with_files(each, files, told) for name, each in value.items()}
    if isinstance(value, list):
        return [await with_files(each, files, told) for each in value]
    return value


async def _told(request: Request, file: File, files: Files) -> str:
    """An address, or a data URI where clients know files by `https:` and `data:` alone, and this server is reached by http."""
    if request.scope.get("scheme") == "https" or (file.size_bytes or 0) > INLINE_BYTES:
        return link(request, file)
    data, kind = await files.read(request, file)
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
