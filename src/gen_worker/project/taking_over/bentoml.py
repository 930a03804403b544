"""BentoML projects: a class marked with `@bentoml.service`; its methods marked with `@bentoml.api` are the functions."""

import ast
from pathlib import Path

from gen_worker.project.taking_over.found import (
    Found,
    FoundFunction,
    TakeOverError,
    keywords_of,
    last_name,
    literal,
    methods_of,
    modules_in,
    requirements_in,
    yields,
)
from gen_worker.project.taking_over.types import Types

STAND_IN = '''"""Takes the place of bentoml, so that its programs are imported as they are."""

from typing import Any


def _mark(*arguments: Any, **settings: Any) -> Any:
    """Leaves what it marks as it is, with and without parentheses."""
    if len(arguments) == 1 and not settings and callable(arguments[0]):
        return arguments[0]
    return lambda marked: marked


service = api = task = on_deployment = on_startup = on_shutdown = _mark


def depends(service: Any = None, **settings: Any) -> Any:
    raise NotImplementedError("services that call services were not taken over; use ctx.invoke")


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    raise NotImplementedError(f"bentoml.{name} was not taken over")
'''
_MARKS = ("api", "task")


def read(root: Path) -> Found:
    """Read a project; `TakeOverError` when it has another form."""
    for file, module in modules_in(root):
        for node in module.body:
            if isinstance(node, ast.ClassDef) and any(last_name(each) == "service" for each in node.decorator_list):
                return _found(root, file, module, node)
    raise TakeOverError("no module has a class that is marked with @bentoml.service")


def _found(root: Path, file: Path, module: ast.Module, service: ast.ClassDef) -> Found:
    where = f"{file}: {service.name}"
    notes: list[str] = []
    mark = next(each for each in service.decorator_list if last_name(each) == "service")
    settings = keywords_of(mark)
    traffic = literal(settings.get("traffic"))
    timeout = traffic.get("timeout") if isinstance(traffic, dict) else None
    notes += [f"{where}: the setting {key}" for key in sorted(settings.keys() - {"traffic", "name"})]
    for node in ast.walk(module):
        if isinstance(node, ast.Attribute) and last_name(node.value) == "bentoml" and node.attr not in ("service", "api", "task"):
            notes.append(f"{file}: bentoml.{node.attr}, line {node.lineno}")
    functions = []
    for name, method in methods_of(service).items():
        marks = [each for each in method.decorator_list if last_name(each) in _MARKS]
        if not marks:
            continue
        types = Types(f"{where}.{name}")
        arguments = method.args.args[1:] + method.args.kwonlyargs
        defaults = [*[None] * (len(method.args.args) - len(method.args.defaults)), *method.args.defaults][1:] + list(
            method.args.kw_defaults
        )
        fields = []
        for argument, default in zip(arguments, defaults, strict=True):
            if argument.arg in ("ctx", "context"):
                notes.append(f"{where}.{name}: its parameter {argument.arg}")
                continue
            fields.append(types.field(argument.arg, argument.annotation, default, _field_given(argument.annotation)))
        if literal(keywords_of(marks[0]).get("batchable")) is True:
            notes.append(f"{where}.{name}: batches across callers; a function takes them with @worker_function(batch=Batch(...))")
        is_async = isinstance(method, ast.AsyncFunctionDef)
        functions.append(
            FoundFunction(
                name=name,
                call=f"{'await ' if is_async and not yields(method) else ''}service().{name}({{arguments}})",
                fields=tuple(fields),
                output=types.output(method.returns, is_stream=yields(method)),
                doc=ast.get_docstring(method) or "",
                is_async=is_async,
                timeout_s=float(timeout) if isinstance(timeout, int | float) and timeout > 0 else None,
                max_concurrency=None,
            )
        )
        notes += types.notes
    if not functions:
        raise TakeOverError(f"{where} has no method that is marked with @bentoml.api")
    wanted, more = requirements_in(root)
    if not wanted and (root / "bentofile.yaml").is_file():
        more.append("bentofile.yaml: its Python packages; add them to pyproject.toml")
    lines = [f"from {file.stem} import {service.name}", "", "", "@functools.cache", f"def service() -> {service.name}:"]
    lines += ['    """Made by the first run; later runs reuse it."""', f"    return {service.name}()"]
    return Found(
        library="bentoml",
        functions=tuple(functions),
        setup="\n".join(lines),
        stand_in=STAND_IN,
        code_root=file.parent.as_posix(),
        dependencies=tuple(wanted),
        notes=tuple(dict.fromkeys([*notes, *more])),
    )


def _field_given(annotation: ast.expr | None) -> dict[str, ast.expr]:
    """The limits in `Annotated[int, Field(ge=1)]`, and in annotated_types' `Ge(1)`."""
    found: dict[str, ast.expr] = {}
    if isinstance(annotation, ast.Subscript) and last_name(annotation.value) == "Annotated" and isinstance(annotation.slice, ast.Tuple):
        for each in annotation.slice.elts[1:]:
            found |= {key: value for key, value in keywords_of(each).items() if key != "default"}
            if isinstance(each, ast.Call) and last_name(each) in ("Ge", "Le", "Gt", "Lt") and each.args:
                found[last_name(each).lower()] = each.args[0]
    return found
