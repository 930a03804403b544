"""Reads the modules of a project as syntax trees. Nothing is run."""

import ast
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from gen_worker.project.taking_over.found import TakeOverError


def parse(path: Path) -> ast.Module:
    """The syntax tree of a module; `TakeOverError` when it cannot be parsed.

    Signatures and decorators that name a constant of the module (`default=STYLE`, `choices=STYLES.keys()`) have its value instead.
    """
    try:
        return _WithConstants.of(ast.parse(path.read_text("utf-8")))
    except FileNotFoundError:
        raise TakeOverError(f"{path} is not there") from None
    except (OSError, UnicodeDecodeError, SyntaxError, RecursionError, ValueError) as exc:
        raise TakeOverError(f"{path.name} cannot be read: {exc}") from None


class _WithConstants(ast.NodeTransformer):
    """Puts the values of a module's constants into signatures and decorators. Bodies stay: a local name may hide a constant there."""

    def __init__(self, constants: Mapping[str, ast.expr]) -> None:
        self._constants = constants

    @classmethod
    def of(cls, module: ast.Module) -> ast.Module:
        assigned = [
            (target.id, node.value)
            for node in module.body
            if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None
            for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
            if isinstance(target, ast.Name)
        ]
        names = [name for name, _ in assigned]
        into = cls({name: value for name, value in assigned if names.count(name) == 1})
        for node in ast.walk(module):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                node.args = into.visit(node.args)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                node.decorator_list = [into.visit(each) for each in node.decorator_list]
        return module

    def visit_Name(self, node: ast.Name) -> ast.expr:
        value = self._constants.get(node.id)
        return node if value is None or literal(value) is None else value

    def visit_Call(self, node: ast.Call) -> ast.expr:
        """`list(STYLES)` and `STYLES.keys()`, where STYLES is a dict or list whose keys or items are literals."""
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr="keys"), args=[]):
                return self._keys(name) or node
            case ast.Call(func=ast.Name(id="list" | "tuple" | "sorted" as how), args=[inner], keywords=[]):
                listed = self._keys(inner.id) if isinstance(inner, ast.Name) else self.visit(inner)
                values = literal(listed)
                if isinstance(values, list | tuple):
                    ordered = sorted(values, key=str) if how == "sorted" else values
                    return ast.List([ast.Constant(each) for each in ordered], ast.Load())
        return self.generic_visit(node)  # type: ignore[return-value]

    def _keys(self, name: str) -> ast.expr | None:
        value = self._constants.get(name)
        if isinstance(value, ast.Dict) and all(literal(key) is not None for key in value.keys):
            return ast.List([key for key in value.keys if key is not None], ast.Load())
        return value


def last_name(node: ast.expr | None) -> str:
    """`service` for `bentoml.service(...)`; `""` for an expression without a name."""
    while isinstance(node, ast.Call):
        node = node.func
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def keywords_of(node: ast.expr | None) -> dict[str, ast.expr]:
    """The keyword arguments of a call; none for anything but a call."""
    return {each.arg: each.value for each in node.keywords if each.arg} if isinstance(node, ast.Call) else {}


def literal(node: ast.expr | None) -> object:
    """The value of a literal; `None` for anything that would have to be run."""
    try:
        return None if node is None else ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None


def methods_of(node: ast.ClassDef) -> dict[str, ast.FunctionDef | ast.AsyncFunctionDef]:
    """The methods that a class defines itself."""
    return {each.name: each for each in node.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)}


def yields(node: ast.AST) -> bool:
    """Whether a function is a generator; nested functions do not count."""
    waiting = list(ast.iter_child_nodes(node))
    while waiting:
        each = waiting.pop()
        if isinstance(each, ast.Yield | ast.YieldFrom):
            return True
        if not isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            waiting.extend(ast.iter_child_nodes(each))
    return False


def modules_in(root: Path) -> Iterator[tuple[Path, ast.Module]]:
    """The project's readable modules, by their path in it."""
    for path in sorted(root.rglob("*.py")):
        relative = path.relative_to(root)
        if not any(part.startswith(".") or part in ("venv", "site-packages", "node_modules", "tests") for part in relative.parts):
            with suppress(TakeOverError):
                yield relative, parse(path)
