"""Multipart run requests: a part `payload` with JSON, and files whose part names say where in the payload they belong."""

import asyncio
import re
import shutil
from pathlib import Path
from typing import Any

import msgspec
from starlette.datastructures import UploadFile

from gen_worker.contract.form_fields import FormFieldError
from gen_worker.execution.text_fields import FormPayload, read_json
from gen_worker.http.asgi import Request, RequestError
from gen_worker.http.forms import read_form


async def read_multipart(request: Request, struct: type[msgspec.Struct], folder: Path, max_bytes: int) -> tuple[bytes, dict[str, Path]]:
    """The payload's JSON with an asset ref in place of each file, and the files by that ref, written to `folder`.

    A file part named `image` or `images[0]` or `options.mask` fills that position with `{"ref": "upload:..."}`. Text
    parts fill theirs with their value, converted by the payload type `struct`; parts with the same name form a list.
    """
    form = await read_form(request, max_bytes)
    try:
        return await asyncio.to_thread(_assemble, list(form.multi_items()), struct, folder)
    except FormFieldError as exc:
        raise RequestError(400, "validation", str(exc), error="invalid_field") from None
    finally:
        await form.close()


def _assemble(items: list[tuple[str, Any]], struct: type[msgspec.Struct], folder: Path) -> tuple[bytes, dict[str, Path]]:
    fields: dict[str, list[Any]] = {}
    for name, value in items:
        fields.setdefault(name, []).append(value)
    body = _payload_part(fields, struct)
    envelope = body if isinstance(body, dict) and isinstance(body.get("payload"), dict) else {}
    form = FormPayload(struct, envelope.get("payload", body))
    kept = 0
    for name, values in fields.items():
        files = [value for value in values if isinstance(value, UploadFile)]
        if files and len(files) < len(values):
            raise FormFieldError(f"field {name[:100]!r} is given as a text and as a file")
        if files:
            form.add_files(name, [(file.filename or "file", _keep(file, folder, kept + index)) for index, file in enumerate(files)])
            kept += len(files)
        else:
            form.add_texts(name, values)
    # Fields belong to the payload, even when the JSON part is an envelope, and when a field is called `payload`.
    return msgspec.json.encode({**envelope, "payload": form.body}), form.uploads


def _payload_part(fields: dict[str, list[Any]], struct: type[msgspec.Struct]) -> Any:
    """The JSON of the part `payload`, which is removed from the fields. A browser's Blob looks like a file, but has this type."""
    parts = fields.get("payload", [])
    is_json = [isinstance(part, str) or (part.content_type or "").partition(";")[0].strip().lower().endswith("json") for part in parts]
    if not parts or not (all(is_json) or "payload" not in struct.__struct_encode_fields__):
        return None
    if len(parts) > 1:
        raise FormFieldError("part 'payload' is given twice")
    del fields["payload"]
    try:
        value = read_json(parts[0] if isinstance(parts[0], str) else parts[0].file.read())
    except FormFieldError as exc:
        raise RequestError(400, "invalid_json", f"part 'payload' is not JSON: {exc}", error="invalid_json") from None
    if not isinstance(value, dict):
        raise RequestError(400, "invalid_json", "part 'payload' must hold a JSON object", error="invalid_json")
    return value


def _keep(file: UploadFile, folder: Path, index: int) -> Path:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    suffix = Path(file.filename or "").suffix
    path = folder / f"upload-{index:04d}{suffix if re.fullmatch(r'[.][A-Za-z0-9]{1,10}', suffix) else ''}"
    with path.open("wb") as target:
        shutil.copyfileobj(file.file, target, 1 << 20)
    return path
