"""cog projects: cog.yaml names a class with `setup` and `predict`."""

import ast
from pathlib import Path

from gen_worker.project.taking_over.found import PYTHON_VERSIONS, Found, FoundFunction, FoundOutput, TakeOverError, requirements_in, yaml_in
from gen_worker.project.taking_over.syntax import keywords_of, last_name, literal, methods_of, parse, yields
from gen_worker.project.taking_over.types import Types

STAND_IN = '''"""Takes the place of cog, so that its programs are imported as they are."""

import pathlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

Path = File = pathlib.Path
ConcatenateIterator = Iterator
AsyncConcatenateIterator = AsyncIterator
Secret = str


class BasePredictor:
    """What it offers is in the subclass."""


class BaseModel:
    """Keeps what it is given."""

    def __init__(self, **values: Any) -> None:
        self.__dict__.update(values)


def Input(default: Any = None, **limits: Any) -> Any:
    """The default; the limits are in the payload's type."""
    return default


def current_scope() -> Any:
    raise NotImplementedError("cog's scope was not converted; use the context: ctx.log, ctx.progress")


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    return type(name, (), {})
'''


def read(root: Path) -> Found:
    """Read a project; `TakeOverError` when it has another form."""
    config = yaml_in(root / "cog.yaml")
    target = config.get("predict") or config.get("run") or ""
    file, _, class_name = str(target).partition(":")
    if not file or not class_name:
        raise TakeOverError('cog.yaml has no line such as predict: "predict.py:Predictor"')
    module = parse(root / file)
    found = next((node for node in module.body if isinstance(node, ast.ClassDef) and node.name == class_name), None)
    if found is None:
        raise TakeOverError(f"{file} has no class {class_name}")
    methods = methods_of(found)
    predict = methods.get("predict") or methods.get("run")
    if predict is None:
        raise TakeOverError(f"{file}: {class_name} has no method predict")
    types = Types(f"{file}: {predict.name}")
    arguments = predict.args.args[1:] + predict.args.kwonlyargs
    defaults = [*[None] * (len(predict.args.args) - len(predict.args.defaults)), *predict.args.defaults][1:] + list(
        predict.args.kw_defaults
    )
    fields = []
    for argument, default in zip(arguments, defaults, strict=True):
        given = keywords_of(default) if last_name(default) == "Input" else {}
        if isinstance(default, ast.Call) and last_name(default) == "Input" and default.args:
            given = {"default": default.args[0], **given}
        fields.append(types.field(argument.arg, argument.annotation, None if last_name(default) == "Input" else default, given))
    build = config.get("build") or {}
    wanted = [str(each) for each in build.get("python_packages") or []]
    output = _object(module, predict.returns, types) or types.output(predict.returns, is_stream=yields(predict))
    more, notes = requirements_in(root, (str(build.get("python_requirements") or "requirements.txt"),))
    notes += types.notes
    notes += [f"cog.yaml: build.{key} = {build[key]!r}" for key in ("run", "cuda", "cudnn", "pre_install") if build.get(key)]
    notes += [f"cog.yaml: {key}" for key in ("train", "concurrency", "weights") if config.get(key)]
    python_version = ".".join(str(build.get("python_version") or "").split(".")[:2])
    if python_version and python_version not in PYTHON_VERSIONS:
        notes.append(f"cog.yaml: build.python_version = {python_version!r}; the image has another, one of {', '.join(PYTHON_VERSIONS)}")
        python_version = ""
    if "train" in methods:
        notes.append(f"{file}: train")
    setup = methods.get("setup")
    if setup is not None and len(setup.args.args) > 1:
        notes.append(f"{file}: the weights that cog gives to setup; declare a model in cozy.toml [models] instead")
    is_async = isinstance(predict, ast.AsyncFunctionDef)
    waits = "await " if is_async and not yields(predict) else ""
    is_set_up_async = isinstance(setup, ast.AsyncFunctionDef)
    made = "(await predictor())" if is_set_up_async and is_async else "asyncio.run(predictor())" if is_set_up_async else "predictor()"
    lines = [f"from {Path(file).with_suffix('').as_posix().replace('/', '.')} import {class_name}", "", ""]
    if is_set_up_async:
        lines += [f"made: list[{class_name}] = []", "", "", f"async def predictor() -> {class_name}:"]
        lines += ['    """Made and set up by the first run; later runs reuse it."""', "    if not made:", f"        new = {class_name}()"]
        lines += ["        await new.setup()", "        made.append(new)", "    return made[0]"]
    else:
        lines += [
            "@functools.cache",
            f"def predictor() -> {class_name}:",
            '    """Made and set up by the first run; later runs reuse it."""',
        ]
        lines += [f"    new = {class_name}()", *["    new.setup()"] * (setup is not None), "    return new"]
    function = FoundFunction(
        name=predict.name,
        call=f"{waits}{made}.{predict.name}({{arguments}})",
        fields=tuple(fields),
        output=output,
        doc=ast.get_docstring(predict) or "",
        is_async=is_async,
    )
    return Found(
        library="cog",
        functions=(function,),
        setup="\n".join(lines),
        stand_in=STAND_IN,
        dependencies=tuple(wanted + more),
        system_packages=tuple(map(str, build.get("system_packages") or [])),
        python_version=python_version,
        notes=tuple(notes),
    )


def _object(module: ast.Module, returns: ast.expr | None, types: Types) -> FoundOutput | None:
    """The output when it is a class of this module, derived from cog's BaseModel."""
    name = literal(returns) if isinstance(returns, ast.Constant) else last_name(returns)
    for node in module.body:
        if isinstance(node, ast.ClassDef) and node.name == name and any(last_name(base) == "BaseModel" for base in node.bases):
            given = [each for each in node.body if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name)]
            fields = [types.field(last_name(each.target), each.annotation, None) for each in given]
            return FoundOutput(kind="object", fields=tuple(fields))
    return None
