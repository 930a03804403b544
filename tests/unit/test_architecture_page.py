"""docs/architecture.md names files; they exist. CONTRIBUTING's table of rooms is the one that the layer contract checks."""

import ast
import configparser
import re
from functools import cache
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


# The next hop is an object that is handed over when the program is built, and neither module imports the other.
HANDED_OVER = {
    "api/app.py": "`api/front.py` is given the application of each term",
    "transport/worker_stream.py": "`scheduling/pool.py` has it as a `WorkerLink`",
}


def test_a_walk_names_each_hop_once_and_each_has_to_do_with_one_before() -> None:
    """Hops that moved, or that nobody calls any more, would stay on the page."""
    page = (ROOT / "docs/architecture.md").read_text()
    handed_over = set()
    for title in ("Walk one: a request", "Walk two: a model"):
        walk = page.split(f"## {title}\n")[1].split("\n## ")[0]
        seen: list[str] = []
        for way in re.split(r"\n\n(?=1\. )", walk)[1:]:
            hops = re.findall(r"`([a-z_0-9/]+\.py)`", way.split("\n\n")[0])
            assert len(hops) == len(set(hops)), f"{title}: a hop is named twice in {hops}"
            for hop in hops:
                name, path = _module(hop)
                if seen and not any(name in _imports(_module(before)[1]) or _module(before)[0] in _imports(path) for before in seen):
                    handed_over.add(hop)
                seen.append(hop)
    assert handed_over == HANDED_OVER.keys()


def _module(hop: str) -> tuple[str, Path]:
    tree = next(tree for tree in TREES if (tree / hop).is_file())
    return f"{tree.name}.{hop[:-3].replace('/', '.')}", tree / hop


@cache
def _imports(path: Path) -> frozenset[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{name.name}" for name in node.names)}
    return frozenset(found)


def test_the_pictures_have_all_rooms_and_only_arrows_that_are_imports() -> None:
    page = (ROOT / "docs/architecture.md").read_text()
    wrong, drawn = [], set()
    for picture in re.findall(r"```mermaid\n(.*?)```", page, re.DOTALL):
        labels = dict(re.findall(r"(\w+)\[([^\]:]+)", picture))
        nodes = {node: [part.strip() for part in label.split("·")] for node, label in labels.items()}
        drawn |= {name for names in nodes.values() for name in names}
        for source, target in re.findall(r"(\w+)(?:\[[^\]]+\])? --> (\w+)", picture):
            if not any(_reaches(one, other) for one in nodes.get(source, [source]) for other in nodes.get(target, [target])):
                wrong.append(f"{source} --> {target}")
    assert wrong == []
    rooms = {folder.name for tree in TREES for folder in tree.iterdir() if (folder / "__init__.py").is_file()}
    assert rooms - drawn - {"pb", "settings"} == set()


def _reaches(source: str, target: str) -> bool:
    """Whether a module of one room, or the module of this name, imports something of the other."""
    if target == "vocabulary":  # modules of their own
        return True
    for tree in TREES:
        paths = [*(tree / source).rglob("*.py"), *tree.glob(f"{source}.py")]
        if any(name.startswith(f"{tree.name}.{target}") for path in paths for name in _imports(path)):
            return True
    return False
