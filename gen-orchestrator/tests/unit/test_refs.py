"""Payload fields as `cozyctl invoke -i` takes them."""

from pathlib import Path

import click
import msgspec
import pytest

from gen_orchestrator.cli.refs import payload_of
from gen_worker import Asset


class Input(msgspec.Struct):
    image: Asset
    mask: Asset | None = None
    size: int = 1


[SCHEMA], COMPONENTS = msgspec.json.schema_components([Input], ref_template="#/$defs/{name}")


def test_a_file_that_the_platform_has_is_named_by_its_ref() -> None:
    given = ("image=uploads/ab/cat.png", "mask=https://example.org/m.png", "size=2")
    found = payload_of(given, SCHEMA, COMPONENTS)
    assert found == {"image": {"ref": "uploads/ab/cat.png"}, "mask": {"ref": "https://example.org/m.png"}, "size": 2}
    assert payload_of(['image={"ref": "x"}'], SCHEMA, COMPONENTS) == {"image": {"ref": "x"}}


def test_a_file_of_this_machine_is_sent_with_an_at(tmp_path: Path) -> None:
    file = tmp_path / "cat.png"
    file.write_bytes(b"x")
    with pytest.raises(click.UsageError, match="to send the file, write -i image=@"):
        payload_of([f"image={file}"], SCHEMA, COMPONENTS)
    assert payload_of([f"image=@{file}"], SCHEMA, COMPONENTS)["image"]["ref"].startswith("data:image/png;base64,")
