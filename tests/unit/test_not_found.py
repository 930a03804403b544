"""A 404 about a thing that is not there says `error`; one about a path that a server does not know does not. Clients and `cozyctl` tell by that
whether they speak to another server (`is_no_route`)."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
TREES = (ROOT / "src/gen_worker", ROOT / "gen-orchestrator/src/gen_orchestrator")
BUT = {
    "src/gen_worker/http/asgi.py",  # the path itself
    "src/gen_worker/front_doors/mcp/routes.py",  # without the package there is no such door
}


def test_each_thing_that_is_not_there_has_a_word() -> None:
    lacking = [
        f"{path.relative_to(ROOT).as_posix()}:{call.lineno}"
        for tree in TREES
        for path in tree.rglob("*.py")
        if path.relative_to(ROOT).as_posix() not in BUT
        for call in _not_found(ast.parse(path.read_text()))
        if "error" not in [keyword.arg for keyword in call.keywords]
    ]
    assert lacking == []


def _not_found(tree: ast.AST) -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name("RequestError"), args=[ast.Constant(404), ast.Constant("not_found"), *_]):
                yield node
