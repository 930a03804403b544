"""docs/architecture.md names files; they exist. CONTRIBUTING's table of rooms is the one that the layer contract checks."""

import configparser
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
TREES = (ROOT / "src/gen_worker", ROOT / "gen-orchestrator/src/gen_orchestrator")


def test_every_file_that_the_walks_name_is_there() -> None:
    named = re.findall(r"`([a-z_0-9/]+\.py)`", (ROOT / "docs/architecture.md").read_text())
    assert len(named) > 60
    assert [name for name in named if not any((tree / name).is_file() for tree in TREES)] == []


def test_every_room_has_its_line() -> None:
    page = (ROOT / "docs/architecture.md").read_text()
    for tree in TREES:
        rooms = {folder.name for folder in tree.iterdir() if (folder / "__init__.py").is_file()} - {"pb", "settings"}
        assert {room for room in rooms if f"| `{room}` |" not in page} == set()


def test_contributing_has_the_layers() -> None:
    contract = configparser.ConfigParser()
    contract.read(ROOT / ".importlinter")
    layers = [line.strip() for line in contract["importlinter:contract:layers"]["layers"].splitlines() if line.strip()]
    rows = re.findall(r"^\| [a-z ,]+ \| (`.*`) \|$", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE)
    assert [set(re.findall(r"`(\w+)`", row)) for row in rows] == [set(re.findall(r"\w+", layer)) for layer in layers]
