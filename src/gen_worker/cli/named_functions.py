"""Finds the names of a project's functions in its source without running it: for Tab completion, which must not import
an author's code.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

from gen_worker.names import slugify
from gen_worker.project.source_tree import Watched

MAX_BYTES = 1 << 20
MARKS = ("worker_function", "worker_websocket")


def named_functions(root: Path) -> list[str]:
    """Slugs of the functions that look marked, sorted. Unreadable files are skipped."""
    found: set[str] = set()
    for file in Watched(root.resolve()).read().files:
        path = Path(file)
        try:
            if path.suffix == ".py" and path.stat().st_size <= MAX_BYTES and "worker_" in (text := path.read_text("utf-8")):
                found.update(_in(ast.parse(text)))
        except (OSError, ValueError, SyntaxError, RecursionError):
            continue
    return sorted(found)


def _in(module: ast.Module) -> Iterator[str]:
    for node in ast.walk(module):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and any(map(_is_mark, node.decorator_list)):
            yield slugify(node.name)


def _is_mark(decorator: ast.expr) -> bool:
    name = decorator.func if isinstance(decorator, ast.Call) else decorator
    return (name.attr if isinstance(name, ast.Attribute) else getattr(name, "id", "")) in MARKS
