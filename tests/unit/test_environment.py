"""Who reads the environment: the roots of programs (`cli`, `discover`, `entrypoint`, `testing`), and the doors that stand for one in programs
of others (`worker`, `model_cache`, `pipelines`). The rooms below get values, so that what a call does depends on what it is given, and two
of its kind can differ in one process."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2] / "src/gen_worker"
ROOMS = (
    *("authoring", "content", "contract", "dev", "execution", "files", "http", "images", "net", "project", "residency", "runtime"),
    *("settings", "sources", "transport", "wire"),
)
BUT = {
    "project/variables.py",  # sets `[env]` for the author's code, which reads its environment where it likes
    "runtime/embedded.py",  # behind the door `gen_worker.worker.Worker`
    "transport/__init__.py",  # a variable that the library of gRPC reads when it is imported: set, not read
}


def test_nothing_below_a_root_reads_the_environment() -> None:
    readers = {
        path.relative_to(ROOT).as_posix()
        for room in ROOMS
        for path in (ROOT / room).rglob("*.py")
        if any(_reads(ast.parse(path.read_text())))
    }
    assert readers - BUT == set()


def _reads(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(attr="environ" | "environb" | "getenv") | ast.Attribute(value=ast.Attribute(attr="path"), attr="expandvars"):
                yield node
            case ast.ImportFrom(module="os", names=names) if {"environ", "getenv"} & {name.name for name in names}:
                yield node
