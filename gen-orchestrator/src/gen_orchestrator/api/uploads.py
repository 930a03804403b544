"""Multipart requests: files and texts named after payload fields, converted to the equivalent JSON body.

A part `payload` contains JSON, the bare payload or the whole envelope. A file part `image`, `images[0]` or
`options.mask` is stored with the run, and its ref fills that field. A text part fills its field with a value converted
by the field's schema. Parts with the same name form a list.
"""

import asyncio
import base64
import hashlib
import re
from pathlib import PurePosixPath
from typing import Any

import msgspec
from starlette.datastructures import UploadFile

from gen_orchestrator.api.envelope import MAX_PAYLOAD_BYTES, refused
from gen_orchestrator.api.json_bodies import JsonError, read_json
from gen_orchestrator.hub.files import RunFiles
from gen_worker.contract.form_fields import FormFieldError, place, steps_of
from gen_worker.http.asgi import Request, RequestError
from gen_worker.http.forms import read_form as read_form_parts

MAX_BYTES = 256 << 20
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]")
Schema = dict[str, Any]


class Form:
    """A parsed multipart request. `body` is the JSON of an envelope; `digest` is equal for equal forms, whatever their
    boundary and their run's id.
    """

    def __init__(self, body: bytes, digest: str) -> None:
        self.body = body
        self.digest = digest


async def read_form(request: Request, files: RunFiles, owner: str, run_id: str, schema: Schema) -> Form:
    """Read a form for a run that is about to be accepted, and store its files. `RequestError` 400 says what is wrong with it."""
    form = await read_form_parts(request, MAX_BYTES)
    try:
        return await asyncio.to_thread(_assemble, list(form.multi_items()), files, owner, run_id, schema)
    except FormFieldError as exc:
        raise _wrong(str(exc)) from None
    finally:
        await form.close()


def _assemble(items: list[tuple[str, Any]], files: RunFiles, owner: str, run_id: str, schema: Schema) -> Form:
    digest = hashlib.blake2b(digest_size=16)
    fields: dict[str, list[Any]] = {}
    for name, value in items:
        fields.setdefault(name, []).append(value)
    envelope = _payload_part(fields.pop("payload", []), digest)
    number = 0
    for name, values in fields.items():
        places = _shapes_at(schema, name)
        is_list = name.endswith("[]") or len(values) > 1 or (bool(places) and all(place.get("type") == "array" for place in places))
        whole = is_list and len(values) == 1 and isinstance(values[0], str) and values[0].lstrip().startswith("[")
        if is_list and not whole:
            definitions = schema.get("$defs", {})
            places = [item for place in places for item in _branches(place.get("items", {}), definitions)]
        found = []
        for value in values:
            digest.update(repr(name).encode())
            if not isinstance(value, UploadFile):
                digest.update(b"text" + value.encode())
                found.append(_text(name, value, places))
                continue
            ref = f"runs/{run_id}/inputs/{number}-{_file_name(value.filename)}"
            number += 1
            sha256 = files.keep_input(owner, run_id, ref, value.file)
            digest.update(b"file" + sha256.encode())
            if any(place.get("contentEncoding") == "base64" for place in places):
                if (value.size or 0) > MAX_PAYLOAD_BYTES:
                    raise RequestError(413, "too_large", f"field {name[:100]!r} takes bytes, at most {MAX_PAYLOAD_BYTES} of them")
                value.file.seek(0)
                found.append(base64.b64encode(value.file.read()).decode())
            else:
                found.append({"ref": ref})
        place(envelope["payload"], name.removesuffix("[]"), found if is_list and not whole else found[0])
    return Form(msgspec.json.encode(envelope), digest.hexdigest())


def _payload_part(parts: list[Any], digest: "hashlib.blake2b") -> dict[str, Any]:
    if len(parts) > 1:
        raise _wrong("part 'payload' is given twice")
    if not parts:
        return {"payload": {}}
    data = parts[0].file.read() if isinstance(parts[0], UploadFile) else parts[0].encode()
    digest.update(data)
    try:
        value = read_json(data)
    except JsonError as exc:
        raise refused(exc, "part 'payload'") from None
    if not isinstance(value, dict):
        raise RequestError(400, "invalid_json", "part 'payload' must hold a JSON object", error="invalid_json")
    return value if isinstance(value.get("payload"), dict) else {"payload": value}


def _text(name: str, text: str, places: list[Schema]) -> Any:
    """The value of a text for a field: a text if the field accepts texts, or if its type is unknown and the text is not
    JSON; otherwise JSON.
    """
    types = {place.get("type") for place in places} | {
        "string" for place in places if any(isinstance(v, str) for v in place.get("enum", ()))
    }
    if "string" in types:
        return text
    try:
        return read_json(text.encode())
    except JsonError as exc:
        if exc.word != "invalid_json" or exc.too_large:
            raise _wrong(exc.about(f"field {name[:100]!r}")) from None
        if not types:
            return text
        raise _wrong(f"field {name[:100]!r}: {text[:60]!r} is no {' or '.join(sorted(str(each) for each in types))}") from None


def _shapes_at(schema: Schema, name: str) -> list[Schema]:
    """The possible schemas of a field; empty when nothing is known about it."""
    definitions = schema.get("$defs", {})
    shapes = _branches(schema, definitions)
    for step in steps_of(name.removesuffix("[]")):
        below: list[Schema] = []
        for shape in shapes:
            if isinstance(step, int):
                below += _branches(shape.get("items", {}), definitions)
            elif step in shape.get("properties", {}):
                below += _branches(shape["properties"][step], definitions)
        shapes = below
    return [shape for shape in shapes if shape.get("type") != "null"]


def _branches(schema: Any, definitions: Schema) -> list[Schema]:
    if not isinstance(schema, dict) or not schema:
        return []
    if "$ref" in schema:
        return _branches(definitions.get(schema["$ref"].rpartition("/")[2], {}), definitions)
    branches = schema.get("anyOf", schema.get("oneOf"))
    return [each for branch in branches for each in _branches(branch, definitions)] if branches else [schema]


def _file_name(name: str | None) -> str:
    return _UNSAFE.sub("_", PurePosixPath((name or "").replace("\\", "/")).name)[-100:].lstrip(".") or "file"


def _wrong(detail: str) -> RequestError:
    return RequestError(400, "validation", detail, error="invalid_field")
