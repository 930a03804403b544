"""What was read from another framework's project, as values."""

import ast
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec


class TakeOverError(ValueError):
    """The project has none of the forms that can be converted; the message says what was looked for."""


class FoundField(msgspec.Struct, frozen=True, kw_only=True):
    """A payload field. `type` and `default` are source text. `as_path`: their code expects a path; ours gets an `Asset`."""

    name: str
    type: str = "Any"
    default: str = ""
    meta: tuple[str, ...] = ()
    as_path: bool = False


class FoundOutput(msgspec.Struct, frozen=True, kw_only=True):
    """A function's output. `kind`: `value` (a field `output`), `file`, `files`, or `stream` of items of `type`."""

    kind: str = "value"
    type: str = "Any"


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
    `notes` say what was not converted.
    """

    library: str
    functions: tuple[FoundFunction, ...]
    setup: str
    stand_in: str
    code_root: str = "."
    dependencies: tuple[str, ...] = ()
    system_packages: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def parse(path: Path) -> ast.Module:
    """The syntax tree of a module; `TakeOverError` when it cannot be parsed."""
    try:
        return ast.parse(path.read_text("utf-8"))
    except FileNotFoundError:
        raise TakeOverError(f"{path} is not there") from None
    except (OSError, UnicodeDecodeError, SyntaxError, RecursionError, ValueError) as exc:
        raise TakeOverError(f"{path.name} cannot be read: {exc}") from None


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
