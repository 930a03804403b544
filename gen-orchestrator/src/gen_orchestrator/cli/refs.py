"""Parses `owner/endpoint/function[:tag]` or `@release`, and payload fields given as text, by the function's own schema."""

import base64
import mimetypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import msgspec

from gen_worker.names import TAG_RULE, did_you_mean, is_tag

MAX_FILE_BYTES = 10 << 20  # in a data URI; larger files go by URL


def path_of(ref: str) -> str:
    """The API's path of a function; usage error when the text names none."""
    name, colon, tag = ref.partition("@" if "@" in ref else ":")
    if name.count("/") != 2 or not all(name.split("/")):
        raise click.UsageError(f"{ref!r}: expected owner/endpoint/function[:tag], such as local/hello/generate:dev")
    if colon == ":" and not is_tag(tag):
        raise click.UsageError(f"{ref!r}: tag {tag!r}: {TAG_RULE}")
    return f"/v1/{name}{colon}{tag}"


def payload_of(inputs: Sequence[str], schema: dict[str, Any], components: dict[str, Any]) -> dict[str, Any]:
    """The payload from `-i field=value` options. `schema`: the function's payload schema; a field's type decides how its text is read."""
    found = resolved(schema, components)
    properties = found.get("properties", {})
    payload: dict[str, Any] = {}
    for text in inputs:
        field, equals, value = text.partition("=")
        if not equals:
            raise click.UsageError(f"-i {text!r}: expected FIELD=VALUE, or FIELD=@FILE")
        if properties and field not in properties:
            raise click.UsageError(f"the function has no field {field!r}.{did_you_mean(field, properties)} Fields: {', '.join(properties)}")
        payload[field] = _file(value[1:]) if value.startswith("@") else _value(field, value, properties.get(field, {}), components)
    return payload


def resolved(schema: dict[str, Any], components: dict[str, Any]) -> dict[str, Any]:
    """The schema behind a `$ref`."""
    while "$ref" in schema:
        schema = components.get(schema["$ref"].rpartition("/")[2], {})
    return schema


def _value(field: str, text: str, schema: dict[str, Any], components: dict[str, Any]) -> Any:
    found = resolved(schema, components)
    kinds = [resolved(each, components) for each in found.get("anyOf", ())] or [found]
    if any(kind.get("type") == "string" or any(isinstance(value, str) for value in kind.get("enum", ())) for kind in kinds):
        return text
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        if any("ref" in kind.get("properties", ()) for kind in kinds):  # it is an Asset
            if Path(text).expanduser().is_file():
                raise click.UsageError(f"-i {field}={text}: to send the file, write -i {field}=@{text}") from None
            return {"ref": text}
        expected = found.get("type", "JSON")
        raise click.UsageError(f"-i {field}={text!r}: expected {expected}, written as JSON") from None


def _file(name: str) -> dict[str, Any]:
    path = Path(name)
    try:
        data = path.read_bytes()
    except OSError as exc:
        raise click.UsageError(f"the file {name!r} cannot be read: {exc.strerror}") from None
    if len(data) > MAX_FILE_BYTES:
        raise click.UsageError(
            f"{name} holds {len(data) >> 20} MiB; at most {MAX_FILE_BYTES >> 20} MiB are sent: use its https URL instead"
        )
    kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    return {"ref": f"data:{kind};base64,{base64.b64encode(data).decode()}"}
