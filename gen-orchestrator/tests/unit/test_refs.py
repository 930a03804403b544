"""Payload fields as `cozyctl invoke -i` takes them."""

from pathlib import Path

import click
import msgspec
import pytest

from gen_orchestrator.cli.refs import payload_of
from gen_worker import Asset


class Options(msgspec.Struct):
    width: int = 1
    name: str = ""
    mask: Asset | None = None


class Input(msgspec.Struct):
    image: Asset
    mask: Asset | None = None
    size: int = 1
    prompt: str = ""
    tags: list[str] = []
    masks: list[Asset] = []
    counts: list[int] | None = None
    raw: bytes = b""
    options: Options = msgspec.field(default_factory=lambda: Options())
    table: dict[str, int] = {}


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


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["options.width=8", "options.name=12"], {"options": {"width": 8, "name": "12"}}),
        (["tags=a", "tags=b"], {"tags": ["a", "b"]}),
        (["tags[]=7"], {"tags": ["7"]}),
        (['tags=["x"]'], {"tags": ["x"]}),
        (["tags[0]=x", "tags[1]=y"], {"tags": ["x", "y"]}),
        (["counts=1", "counts=2"], {"counts": [1, 2]}),
        (["table.a=1"], {"table": {"a": 1}}),
        (["prompt=@bob says hi"], {"prompt": "@bob says hi"}),
    ],
)
def test_fields_are_named_as_in_cozyctl_run(given: list[str], expected: dict[str, object]) -> None:
    assert payload_of(given, SCHEMA, COMPONENTS) == expected


def test_files_go_where_files_belong(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_bytes(b"x")
    data = {"ref": "data:text/plain;base64,eA=="}
    assert payload_of([f"masks=@{file}"], SCHEMA, COMPONENTS) == {"masks": [data]}
    assert payload_of([f"masks=@{file}", f"masks=@{file}"], SCHEMA, COMPONENTS) == {"masks": [data, data]}
    assert payload_of([f"options.mask=@{file}"], SCHEMA, COMPONENTS) == {"options": {"mask": data}}
    assert payload_of([f"raw=@{file}"], SCHEMA, COMPONENTS) == {"raw": "eA=="}
    with pytest.raises(click.UsageError, match="prompt does not accept a file; to send the file's text"):
        payload_of([f"prompt=@{file}"], SCHEMA, COMPONENTS)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["size=1", "size=2"], "-i size is given 2 times, but takes one value"),
        (["optoins.width=1"], "Did you mean 'options'?"),
        (["image=@/nowhere.png"], "there is no file /nowhere.png"),
        (["image=@/"], "/ is a folder"),
        (["image=@-", "mask=@-"], "can be read once"),
        (["size"], "expected FIELD=VALUE"),
        (["prompt=\udcff"], "the value is not UTF-8"),
    ],
)
def test_what_is_wrong_is_said(given: list[str], said: str) -> None:
    with pytest.raises(click.UsageError) as refused:
        payload_of(given, SCHEMA, COMPONENTS)
    assert said in refused.value.message
