"""The example request that `cozyctl up` shows can be sent."""

from typing import Any

import pytest

from gen_orchestrator.cli.screen import body_of

ASSET = {"title": "Asset", "type": "object", "properties": {"ref": {"type": "string"}}, "required": ["ref"]}


def schema(required: list[str], **properties: Any) -> dict[str, Any]:
    payload = {"title": "In", "type": "object", "properties": properties, "required": required}
    return {"$ref": "#/$defs/In", "$defs": {"In": payload, "Asset": ASSET}}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (schema(["text"], text={"type": "string"}, n={"type": "integer"}), """-d '{"text":"hello"}'"""),
        (schema(["text"], text={"type": "string", "examples": ["it's"]}), """-d '{"text":"it'"'"'s"}'"""),
        (schema(["file"], file={"description": "A WAV", "$ref": "#/$defs/Asset"}), "-F file=@FILE"),
        (
            schema(
                ["image", "words", "n"],
                image={"$ref": "#/$defs/Asset"},
                words={"type": "string", "examples": ["a kite"]},
                n={"type": "integer"},
            ),
            "-F image=@FILE -F 'words=a kite' -F n=1",
        ),
        (schema([]), "-d '{}'"),
        ({"type": "array", "items": {"type": "integer"}, "minItems": 1}, "-d '[1]'"),
    ],
)
def test_it_fits_the_schema(given: dict[str, Any], expected: str) -> None:
    assert body_of(given) == expected
