"""What was read from another framework's project, as values, and its files that are not Python."""

from pathlib import Path
from typing import Any

import msgspec

PYTHON_VERSIONS = ("3.11", "3.12", "3.13")
"""What gen-worker runs on; the base of our images has a tag for each."""


class TakeOverError(ValueError):
    """The project has none of the forms that can be converted; the message says what was looked for."""


class FoundField(msgspec.Struct, frozen=True, kw_only=True):
    """A payload field. `type` and `default` are source text. `as_path`: their code expects a path; ours gets an `Asset`.

    `key`: the name in JSON where it is no name in Python (`max-tokens`, `class`).
    `may_be_absent`: their code tests whether the key is there, so a field that the caller leaves out must not reach it.
    """

    name: str
    type: str = "Any"
    default: str = ""
    meta: tuple[str, ...] = ()
    as_path: bool = False
    may_be_absent: bool = False
    key: str = ""


class FoundOutput(msgspec.Struct, frozen=True, kw_only=True):
    """A function's output. `kind`: `value` (a field `output`), `file`, `files`, `stream` of items of `type`, or `object`,
    whose attributes are `fields`.
    """

    kind: str = "value"
    type: str = "Any"
    fields: tuple[FoundField, ...] = ()


class FoundFunction(msgspec.Struct, frozen=True, kw_only=True):
    """One function. `call` is an expression that runs theirs; `{arguments}` stands for the payload as keyword
    arguments, `{payload}` for a dict.
    """

    name: str
    call: str
    fields: tuple[FoundField, ...] = ()
    output: FoundOutput = FoundOutput()
    doc: str = ""
    is_async: bool = False
    timeout_s: float | None = None
    max_concurrency: int | None = 1


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """A project. `setup` is source text for our module that creates their object once. `stand_in` is the text of a
    module that replaces their library, which is called `library`. `code_root` is the folder where their imports start.
    `python_version`: of the image, such as `3.12`; empty for ours. `notes` say what was not converted.
    """

    library: str
    functions: tuple[FoundFunction, ...]
    setup: str
    stand_in: str
    code_root: str = "."
    dependencies: tuple[str, ...] = ()
    system_packages: tuple[str, ...] = ()
    python_version: str = ""
    notes: tuple[str, ...] = ()


def yaml_in(path: Path) -> dict[str, Any]:
    """The settings in a YAML file; `TakeOverError` when it cannot be read."""
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        raise TakeOverError(f"there is no {path.name}") from None
    except (OSError, UnicodeDecodeError) as exc:
        raise TakeOverError(f"{path.name} cannot be read: {exc}") from None
    try:
        import yaml
    except ImportError:
        raise TakeOverError(f"reading {path.name} needs PyYAML; install it with: pip install pyyaml") from None
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError as exc:
        raise TakeOverError(f"{path.name} cannot be read: {exc}") from None
    if not isinstance(found, dict):
        raise TakeOverError(f"{path.name} is not a table of settings")
    return found


def requirements_in(root: Path, names: tuple[str, ...] = ("requirements.txt",)) -> tuple[list[str], list[str]]:
    """Requirements in files, and the lines that are none (`-r`, `--extra-index-url`)."""
    wanted: list[str] = []
    other: list[str] = []
    for name in names:
        path = root / name
        if path.is_file():
            for line in path.read_text("utf-8", errors="replace").splitlines():
                text = line.partition(" #")[0].strip()
                if text and not text.startswith("#"):
                    (other if text.startswith("-") else wanted).append(text)
    return wanted, [f"the line {line!r} of the requirements" for line in other]
