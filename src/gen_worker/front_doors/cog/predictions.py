"""Converts a run to a prediction."""

import base64
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from gen_worker.contract.problem import Problem
from gen_worker.front_doors.files import Files, base_of, link
from gen_worker.front_doors.runs import File
from gen_worker.http.asgi import Request

INLINE_BYTES = 8 << 20  # limit for a file inside the answer itself, used when the client could not tell its http URL from text
BASE_HEADER = b"x-cozy-predictions"  # tells the run's own route that its webhook expects predictions, and where they are
STATUSES = {"queued": "starting", "starting": "starting", "running": "processing", "expired": "failed"}


class SeenRun(msgspec.Struct, frozen=True):
    """A run object of the dev runner or the platform. Times are RFC 3339."""

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
        """The name of its function in a catalog."""
        return f"{self.owner}/{self.endpoint}/{self.function}:{self.tag}" if self.owner else self.function


class Said(msgspec.Struct):
    """What a run has output and logged so far."""

    outputs: list[Any] = []
    logs: list[str] = []

    def take(self, name: str, data: bytes | msgspec.Raw) -> None:
        """Process an event of the run's stream."""
        if name == "output":
            self.outputs.append(msgspec.json.decode(data))
        elif name == "log":
            self.logs.append(msgspec.json.decode(data, type=_Log).message)
        elif name == "restart":
            self.outputs.clear()


class _Log(msgspec.Struct):
    message: str = ""


decode_run = msgspec.json.Decoder(SeenRun).decode


def prediction(run: SeenRun, said: Said, base: str, told: Mapping[str, str], *, streams: bool, given: Any = None) -> dict[str, Any]:
    """The prediction for a run. `base`: URL of predictions; `told`: a text for each of its files, by ref; `given`: its
    input, when the run object lacks it.

    An output with one field becomes that field's value, because cog's functions return plain values; one with several
    fields stays an object.
    """
    output = [plain(each) for each in said.outputs] if streams else plain(run.output)
    here = f"{base}/predictions/{run.id}"
    inference_ms = run.timings.get("inference_ms") or run.timings.get("total_ms")
    return {
        "id": run.id,
        "model": f"{run.owner}/{run.endpoint}" if run.owner else run.function,
        "version": run.function_name,
        "status": STATUSES.get(run.status, run.status),
        "input": run.input if run.input is not None else given,
        "output": _with_files(output, told) if output not in (None, []) else None,
        "error": run.error.detail if run.error is not None else None,
        "logs": "".join(f"{line}\n" for line in said.logs),
        "metrics": {"predict_time": inference_ms / 1000} if run.is_over and inference_ms is not None else {},
        "created_at": run.created_at,
        "started_at": run.started_at,
        "completed_at": run.finished_at,
        "urls": {"get": here, "cancel": f"{here}/cancel"},
    }


def message(run_object: bytes, events: Iterable[tuple[str, bytes]], base: str) -> bytes:
    """The body for a webhook: the prediction for a run object, with the content of its `events` (name, JSON)."""
    run, said = decode_run(run_object), Said()
    for name, data in events:
        said.take(name, data)
    site = "/".join(base.split("/")[:3])
    told = {file.ref: f"{site}{file.url}" for file in run.files or ()}
    return msgspec.json.encode(prediction(run, said, base, told, streams=run.output is None))


def base_for(request: Request) -> str:
    """The URL under which this client finds predictions."""
    return base_of(request) + ("/v1" if request.scope["path"].startswith("/v1/") else "")


async def texts_of(request: Request, run: SeenRun, files: Files) -> dict[str, str]:
    """A text for each file of a run: a URL; or a data URI if the client recognises files only by `https:` and `data:`,
    and this server is reached by http.
    """
    return {file.ref: await _told(request, file, files) for file in run.files or ()}


def plain(output: Any) -> Any:
    """The value of an output with one field; any other output unchanged."""
    return next(iter(output.values())) if isinstance(output, dict) and len(output) == 1 else output


def _with_files(value: Any, told: Mapping[str, str]) -> Any:
    """The value with a text in place of each saved file."""
    if isinstance(value, dict):
        text = told.get(value["ref"]) if isinstance(value.get("ref"), str) else None
        return {name: _with_files(each, told) for name, each in value.items()} if text is None else text
    return [_with_files(each, told) for each in value] if isinstance(value, list) else value


async def _told(request: Request, file: File, files: Files) -> str:
    """A URL; or a data URI if the client recognises files only by `https:` and `data:`, and this server is reached by http."""
    if request.scope.get("scheme") == "https" or (file.size_bytes or 0) > INLINE_BYTES:
        return link(request, file)
    data, kind = await files.read(request, file)
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
