"""Who reads the environment: the commands, which are roots. What they start is given values; child processes get parts of a `ChildEnvironment`."""

import ast
from pathlib import Path

import gen_orchestrator
from gen_orchestrator.child_environment import ChildEnvironment

ROOT = Path(gen_orchestrator.__file__).parent
READS = {"environ", "environb", "getenv", "expandvars"}


def _reads(tree: ast.AST) -> bool:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in READS:
            return True
        if isinstance(node, ast.ImportFrom) and node.module == "os" and READS & {name.name for name in node.names}:
            return True
    return False


def test_nothing_below_the_commands_reads_the_environment() -> None:
    readers = {path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*.py") if _reads(ast.parse(path.read_text()))}
    assert {name for name in readers if not name.startswith("cli/")} == set()
    assert readers, "the commands do"


def test_the_environment_of_children_is_a_copy_that_shows_no_values() -> None:
    given = {"COZY_HUB_TOKEN": "hush"}
    kept = ChildEnvironment(given)
    given["LATER"] = "1"
    assert dict(kept) == {"COZY_HUB_TOKEN": "hush"}
    assert "hush" not in f"{kept!r} {kept}"
