"""Who reads the environment: the roots of programs, and doors that stand for one. All else gets values, so that what a call does depends on
what it is given, and two of its kind can differ in one process."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
WORKER, PLATFORM = ROOT / "src/gen_worker", ROOT / "gen-orchestrator/src/gen_orchestrator"
ROOTS = {
    WORKER: {
        "cli": "commands",
        "discover.py": "a command",
        "entrypoint.py": "a program",
        "testing/http_runner.py": "a program",
        "model_cache.py": "the door for programs of others",
        "pipelines.py": "the door for programs of others",
        "runtime/embedded.py": "the worker for programs of others",
        "testing/end_to_end.py": "what a program that it starts inherits",
        "transport/__init__.py": "a variable that the library of gRPC reads when it is imported: set, not read",
    },
    PLATFORM: {
        "cli": "commands",
        "platform_up.py": "the root of the platform",
        "hub/s3_blobs.py": "credentials, under the names that every client of S3 reads",
        "hub/discovery.py": "what a program that it starts inherits",
        "hub/image_builder.py": "what a program that it starts inherits",
        "hub/environments.py": "what a program that it starts inherits",
        "fleet/containers.py": "what a program that it starts inherits",
        "fleet/processes.py": "what a program that it starts inherits",
    },
}


def test_nothing_below_a_root_reads_the_environment() -> None:
    for tree, roots in ROOTS.items():
        readers = {path.relative_to(tree).as_posix() for path in tree.rglob("*.py") if any(_reads(ast.parse(path.read_text())))}
        assert {reader for reader in readers if not any(reader == root or reader.startswith(f"{root}/") for root in roots)} == set()
        assert {root for root in roots if not any(reader == root or reader.startswith(f"{root}/") for reader in readers)} == set()


def _reads(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(attr="environ" | "environb" | "getenv") | ast.Attribute(value=ast.Attribute(attr="path"), attr="expandvars"):
                yield node
            case ast.ImportFrom(module="os", names=names) if {"environ", "getenv"} & {name.name for name in names}:
                yield node
