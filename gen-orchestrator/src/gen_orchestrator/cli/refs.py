"""Parses `owner/endpoint/function[:tag]` or `@release`, and payload fields given as text, by the function's own schema."""

import base64
import mimetypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import msgspec

from gen_worker.cli.given import given_by_field, open_given, text_of
from gen_worker.contract.form_fields import place, steps_of
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
    """The payload from `-i field=value` options, as `cozyctl run` reads them: `size.width=8` is a field of a field, a field that is given
    several times is a list. `schema`: the function's payload schema; a field's type decides how its text is read."""
    properties = resolved(schema, components).get("properties", {})
    payload: dict[str, Any] = {}
    try:
        for name, values in given_by_field(inputs, None).items():
            field, as_list = name.removesuffix("[]"), name.endswith("[]") or len(values) > 1
            steps = steps_of(field)
            if properties and steps[0] not in properties:
                near = did_you_mean(str(steps[0]), properties)
                raise click.UsageError(f"the function has no field {steps[0]!r}.{near} Fields: {', '.join(properties)}")
            found = schemas_at(steps, schema, components)
            items = [each for one in found for each in _below(one, 0, components)]
            if len(values) > 1 and found and not items:
                raise click.UsageError(f"-i {field} is given {len(values)} times, but takes one value")
            lists = as_list or (values[0].startswith("@") and bool(items) and all(each.get("type") in ("array", "null") for each in found))
            read = [_read(field, value, (items if lists else found), components) for value in values]
            place(payload, field, read if lists else read[0])
    except ValueError as exc:
        raise click.UsageError(str(exc)) from None
    return payload


def schemas_at(steps: Sequence[str | int], schema: dict[str, Any], components: dict[str, Any]) -> list[dict[str, Any]]:
    """The schemas that a field may have; empty when nothing is known about it."""
    found = _members(schema, components)
    for step in steps:
        found = [below for each in found for below in _below(each, step, components)]
    return found


def _below(schema: dict[str, Any], step: str | int, components: dict[str, Any]) -> list[dict[str, Any]]:
    if isinstance(step, int):
        inside = schema.get("items") or next(iter(schema.get("prefixItems", ())), None)
    else:
        inside = schema.get("properties", {}).get(step, schema.get("additionalProperties"))
    return _members(inside, components) if isinstance(inside, dict) else []


def _members(schema: dict[str, Any], components: dict[str, Any]) -> list[dict[str, Any]]:
    found = resolved(schema, components)
    return [member for each in found["anyOf"] for member in _members(each, components)] if "anyOf" in found else [found]


def resolved(schema: dict[str, Any], components: dict[str, Any]) -> dict[str, Any]:
    """The schema behind a `$ref`."""
    while "$ref" in schema:
        schema = components.get(schema["$ref"].rpartition("/")[2], {})
    return schema


def _read(field: str, text: str, kinds: list[dict[str, Any]], components: dict[str, Any]) -> Any:
    if text.startswith("@") and (not kinds or any(_is_asset(kind) or _is_bytes(kind) for kind in kinds)):
        return _file(field, text[1:], as_text=any(map(_is_bytes, kinds)) and not any(map(_is_asset, kinds)))
    text = text_of(field, text)
    if any(kind.get("type") == "string" or any(isinstance(value, str) for value in kind.get("enum", ())) for kind in kinds):
        return text
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        if any(map(_is_asset, kinds)):
            if Path(text).expanduser().is_file():
                raise click.UsageError(f"-i {field}={text}: to send the file, write -i {field}=@{text}") from None
            return {"ref": text}
        if not kinds:
            return text
        expected = " or ".join(str(kind.get("type", "JSON")) for kind in kinds)
        raise click.UsageError(f"-i {field}={text!r}: expected {expected}, written as JSON") from None


def _is_asset(kind: dict[str, Any]) -> bool:
    return "ref" in kind.get("properties", ())


def _is_bytes(kind: dict[str, Any]) -> bool:
    return kind.get("contentEncoding") == "base64"


def _file(field: str, name: str, *, as_text: bool) -> Any:
    with open_given(field, name) as source:
        data = source.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise click.UsageError(
            f"{name} holds more than {MAX_FILE_BYTES >> 20} MiB, which is the most that a run takes along: store it by cozyctl files put, "
            "and send its ref"
        )
    encoded = base64.b64encode(data).decode()
    return encoded if as_text else {"ref": f"data:{mimetypes.guess_type(name)[0] or 'application/octet-stream'};base64,{encoded}"}
