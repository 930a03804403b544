"""Multipart run requests: a part `payload` with JSON, and files whose part names say where in the payload they belong."""

import re
import shutil
from collections.abc import AsyncGenerator
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import msgspec
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from gen_worker.http.asgi import BodyReader, Request, RequestError

MAX_FILES = 100
MAX_FIELDS = 1000
_STEP = re.compile(r"([^.\[\]]+)|\[(\d+)\]")


async def read_multipart(request: Request, struct: type[msgspec.Struct], folder: Path, max_bytes: int) -> tuple[bytes, dict[str, Path]]:
    """The payload's JSON with an asset ref in the place of each file, and the files by that ref, written to `folder`.

    A part named `image` or `images[0]` or `options.mask` fills that place with `{"ref": "upload:..."}`. Other text parts fill
    theirs with their value; `struct` is the payload type.
    """
    headers = Headers(raw=request.scope["headers"])
    parser = MultiPartParser(
        headers, _chunks(BodyReader(request, max_bytes)), max_files=MAX_FILES, max_fields=MAX_FIELDS, max_part_size=max_bytes
    )
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError) as exc:
        detail = getattr(exc, "message", None) or "it has no boundary"
        raise RequestError(400, "invalid_multipart", f"the multipart body cannot be read: {detail}", error="invalid_multipart") from None
    try:
        return _assemble(list(form.multi_items()), struct, folder)
    finally:
        await form.close()


def _assemble(items: list[tuple[str, Any]], struct: type[msgspec.Struct], folder: Path) -> tuple[bytes, dict[str, Path]]:
    payload: Any = {}
    for name, value in items:
        if name == "payload" and isinstance(value, str):
            payload = _json(value, "payload")
    uploads: dict[str, Path] = {}
    for name, value in items:
        if isinstance(value, UploadFile):
            ref = f"upload:{len(uploads)}/{Path(value.filename or 'file').name}"
            uploads[ref] = _keep(value, folder, len(uploads))
            place(payload, name, {"ref": ref})
        elif name != "payload":
            place(payload, name, text_value(value, struct, name))
    return msgspec.json.encode(payload), uploads


def place(payload: Any, name: str, value: Any) -> None:
    """Put `value` where `name` points: `image`, `images[0]`, `options.mask`; `RequestError` when there is no such place."""
    steps = [step[0] or int(step[1]) for step in _STEP.findall(name)]
    rebuilt = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps).lstrip(".")
    if not steps or rebuilt != name:
        raise RequestError(400, "validation", f"field name {name[:100]!r}: expected a path such as image, images[0] or options.mask")
    here = payload
    for index, step in enumerate(steps):
        last = index == len(steps) - 1
        empty: Any = value if last else [] if isinstance(steps[index + 1], int) else {}
        if isinstance(step, int) and isinstance(here, list) and step <= len(here):
            if step == len(here):
                here.append(empty)
            elif last:
                here[step] = empty
        elif isinstance(step, str) and isinstance(here, dict):
            if last:
                here[step] = empty
            else:
                here.setdefault(step, empty)
        else:
            raise RequestError(400, "validation", f"field {name[:100]!r} does not fit the payload sent with it")
        here = here[step]


def text_value(text: str, struct: type[msgspec.Struct], name: str) -> Any:
    """A field's value from text: as it stands where `struct` wants a string there, else as JSON where it is JSON (`7`, `true`)."""
    if name in struct.__struct_fields__:
        hint = get_type_hints(struct)[name]
        if hint is str or (str in get_args(hint) and get_origin(hint) in (Union, UnionType)):
            return text
    try:
        return msgspec.json.decode(text.encode())
    except (msgspec.DecodeError, RecursionError):
        return text


def _json(text: str, name: str) -> Any:
    try:
        value = msgspec.json.decode(text.encode())
    except (msgspec.DecodeError, RecursionError) as exc:
        raise RequestError(400, "invalid_json", f"part {name!r} is not JSON: {exc}", error="invalid_json") from None
    if not isinstance(value, dict):
        raise RequestError(400, "invalid_json", f"part {name!r} must hold a JSON object", error="invalid_json")
    return value


def _keep(file: UploadFile, folder: Path, index: int) -> Path:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    suffix = Path(file.filename or "").suffix
    path = folder / f"upload-{index:04d}{suffix if re.fullmatch(r'[.][A-Za-z0-9]{1,10}', suffix) else ''}"
    with path.open("wb") as target:
        shutil.copyfileobj(file.file, target, 1 << 20)
    return path


async def _chunks(reader: BodyReader) -> AsyncGenerator[bytes, None]:
    while not reader.ended:
        yield await reader.next_chunk()
