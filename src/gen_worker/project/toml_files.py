"""TOML files of a project that are not defined by us: pyproject.toml, uv.lock."""

import tomllib
from pathlib import Path
from typing import Any


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file; empty when it is missing or invalid, which is reported elsewhere."""
    try:
        return tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        return {}


def tables(table: dict[str, Any], key: str) -> list[dict[str, Any]]:
    """The tables of an array of tables; none when the file has something else there."""
    found = table.get(key, [])
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []
