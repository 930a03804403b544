"""Transcription and speech: recordings to text, and text to recordings."""

import secrets
from typing import Any

import msgspec
from starlette.datastructures import UploadFile

from gen_worker.front_doors.catalog import Catalog, Target, find_for
from gen_worker.front_doors.files import Files, file_at
from gen_worker.front_doors.openai.errors import error_object
from gen_worker.front_doors.openai.parameters import Parameters, read_object, refused
from gen_worker.front_doors.openai.subtitles import srt, vtt
from gen_worker.front_doors.openai.usage import usage_of
from gen_worker.front_doors.runs import DoneRun, ProblemError, Run, Runs
from gen_worker.http import sse
from gen_worker.http.asgi import Request
from gen_worker.http.forms import read_form
from gen_worker.http.headers import media_type
from gen_worker.http.problems import problem

MAX_RECORDING_BYTES = 100 << 20
TEXT = b"text/plain; charset=utf-8"
_encode = msgspec.json.Encoder().encode
_NUMBERS = ("temperature",)


class AudioDoor:
    """Handlers of `/v1/audio/transcriptions` and `/v1/audio/speech`."""

    def __init__(self, catalog: Catalog, runs: Runs, files: Files) -> None:
        self._catalog = catalog
        self._runs = runs
        self._files = files

    async def speak(self, request: Request) -> None:
        """`POST /v1/audio/speech`."""
        asked = Parameters(await read_object(request))
        model, text = asked.text("model"), asked.text("input")
        asked.choice("stream_format", "audio")
        target = find_for(self._catalog, request, model, "speech")
        async with self._runs.start(request, target, asked.payload(target, input=text)) as run:
            done = await run.finish()
        file = file_at(done, done.output["audio"])
        if file is None:
            raise ProblemError(problem(500, "internal", f"function {target.name!r} returned a recording that it has not saved"))
        data, kind = await self._files.read(request, file)
        await request.answer(200, data, kind.encode("latin-1"), {"x-request-id": run.id})

    async def transcribe(self, request: Request) -> None:
        """`POST /v1/audio/transcriptions`."""
        recording, fields = await _read(request)
        asked = Parameters(fields)
        model, stream = asked.text("model"), asked.take("stream", "false") == "true"
        form = asked.choice("response_format", "json", "text", "verbose_json", "srt", "vtt")
        target = find_for(self._catalog, request, model, "transcription")
        payload = asked.payload(target)
        async with self._runs.start(request, target, {}, form=_form(recording, payload)) as run:
            if stream:
                await _stream(request, run)
                return
            heard = _Heard()
            async for piece in run.outputs():
                heard.add(piece or {})
            assert run.done is not None
            body, kind = _shown(heard, form, run.done, target)
            await request.answer(200, body, kind, {"x-request-id": run.id})


class Recording(msgspec.Struct, frozen=True):
    """A file in a form."""

    name: str
    kind: str
    data: bytes


class _Heard:
    """Pieces of a transcription, joined."""

    def __init__(self) -> None:
        self.text = ""
        self.segments: list[dict[str, Any]] = []
        self.facts: dict[str, Any] = {}

    def add(self, piece: dict[str, Any]) -> None:
        self.text += piece.get("text") or ""
        self.segments += piece.get("segments") or ()
        self.facts |= {name: value for name, value in piece.items() if name in ("language", "duration") and value is not None}


async def _read(request: Request) -> tuple[Recording, dict[str, Any]]:
    if media_type(request.header(b"content-type")) != "multipart/form-data":
        raise refused("file", "expected a multipart form with the recording as its part 'file'")
    form = await read_form(request, MAX_RECORDING_BYTES)
    try:
        recording: Recording | None = None
        fields: dict[str, Any] = {}
        for name, value in form.multi_items():
            if isinstance(value, UploadFile):
                if name != "file" or recording is not None:
                    raise refused(name[:100], "expected one file, as the part 'file'")
                recording = Recording(value.filename or "audio", value.content_type or "application/octet-stream", await value.read())
            elif name.endswith("[]"):
                fields.setdefault(name.removesuffix("[]"), []).append(value)
            else:
                fields[name] = _number(name, value) if name in _NUMBERS else value
    finally:
        await form.close()
    if recording is None:
        raise refused("file", "missing")
    return recording, fields


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise refused(name, f"{text[:40]!r}; expected a number") from None


def _form(recording: Recording, payload: dict[str, Any]) -> tuple[bytes, str]:
    """The form for the run's own route: the payload as JSON, and the file at its field."""
    mark = secrets.token_hex(16)
    name = "".join(each if each.isalnum() or each in "._-" else "_" for each in recording.name)[-100:]
    parts = (
        b'--%b\r\ncontent-disposition: form-data; name="payload"\r\n\r\n%b\r\n' % (mark.encode(), _encode(payload)),
        b'--%b\r\ncontent-disposition: form-data; name="file"; filename="%b"\r\n' % (mark.encode(), name.encode("ascii", "replace")),
        b"content-type: %b\r\n\r\n" % recording.kind.encode("latin-1", "replace"),
        recording.data,
        b"\r\n--%b--\r\n" % mark.encode(),
    )
    return b"".join(parts), f"multipart/form-data; boundary={mark}"


def _shown(heard: _Heard, form: str, done: DoneRun, target: Target) -> tuple[bytes, bytes]:
    if form == "text":
        return heard.text.encode() + b"\n", TEXT
    if form in ("srt", "vtt"):
        if not heard.segments and heard.text:
            raise ProblemError(problem(400, "validation", f"response_format={form}: function {target.name!r} returned no segments"))
        return (srt if form == "srt" else vtt)(heard.segments).encode(), TEXT
    body: dict[str, Any] = {"text": heard.text, "usage": _usage(done)}
    if form == "verbose_json":
        segments = [{"id": index, **each} for index, each in enumerate(heard.segments)]
        body = {"task": "transcribe", "language": "", "duration": 0.0, **heard.facts, **body, "segments": segments}
    return _encode(body), b"application/json"


async def _stream(request: Request, run: Run) -> None:
    """Pieces as `transcript.text.delta`, then all of it as `transcript.text.done`."""
    heard, is_open = _Heard(), False
    try:
        async for piece in run.outputs():
            if not is_open:
                is_open = True
                await request.start(sse.MEDIA_TYPE, {"x-request-id": run.id})
            if piece is None:
                await request.write(sse.HEARTBEAT)
                continue
            heard.add(piece)
            await request.write(_event({"type": "transcript.text.delta", "delta": piece.get("text") or ""}))
    except ProblemError as exc:
        if not is_open:
            raise
        await request.write(b"data: %b\n\n" % _encode({"error": error_object(exc.problem)}), last=True)
        return
    if not is_open:
        await request.start(sse.MEDIA_TYPE, {"x-request-id": run.id})
    assert run.done is not None
    await request.write(
        _event({"type": "transcript.text.done", "text": heard.text, "usage": _usage(run.done)}) + b"data: [DONE]\n\n", last=True
    )


def _event(body: dict[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (body["type"].encode(), _encode(body))


def _usage(done: DoneRun) -> dict[str, Any]:
    usage = usage_of(done)
    return {
        "type": "tokens",
        "input_tokens": usage["prompt_tokens"],
        "output_tokens": usage["completion_tokens"],
        "total_tokens": usage["total_tokens"],
    }
