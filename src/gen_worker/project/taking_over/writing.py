"""Writes a converted project: our module calls theirs, which is copied unchanged."""

import ast
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from gen_worker.names import slugify
from gen_worker.project.taking_over.found import Found, FoundField, FoundFunction
from gen_worker.project.taking_over.submodules import with_submodules
from gen_worker.project.taking_over.syntax import modules_in
from gen_worker.project.templates import Source, Template, render_project

MAX_FILE_BYTES = 50 << 20
_NOT_COPIED = {"venv", "node_modules", "__pycache__", "outputs"}
_STOOD_IN = {"bentoml.images", "bentoml.validators", "bentoml.models", "runpod.serverless"}
_OURS = {"cozy.toml", "pyproject.toml", "Dockerfile", "README.md", "cog.yaml", "bentofile.yaml", "requirements.txt", "uv.lock"}


def write(found: Found, theirs: Path, target: Path, name: str, source: Source) -> tuple[list[str], list[str]]:
    """Write the project `name` into the new folder `target`; returns the files written, and what was not copied."""
    own = {found.library, "cog", "litserve", "bentoml", "runpod"}
    dependencies = tuple(each for each in found.dependencies if _distribution(each) not in own)
    dependencies += tuple(sorted(_brought_along(found.library, theirs) - {_distribution(each) for each in dependencies}))
    functions = found.functions
    template = Template(
        main=main_module(found),
        first_run=f"run {slugify(functions[0].name)}{_example(functions[0])}",
        summary=f"Converted from {found.library}. `src/{{package}}/main.py` calls the old code, which is in `src` unchanged.",
        test=_test(functions),
        dependencies=dependencies,
        models=_settings(functions),
    )
    files = render_project(template, name, source)
    files[f"src/{found.library}.py"], submodules = with_submodules(found.library, found.stand_in, theirs)
    if found.system_packages:
        packages = " ".join(found.system_packages)
        install = f"RUN apt-get update && apt-get install -y --no-install-recommends {packages} && rm -rf /var/lib/apt/lists/*"
        files["Dockerfile"] = files["Dockerfile"].replace("WORKDIR /app\n", f"{install}\nWORKDIR /app\n", 1)
    if found.python_version:
        files["Dockerfile"] = re.sub(r"(?m)^(FROM \S+:python)3\.\d+", rf"\g<1>{found.python_version}", files["Dockerfile"])
    left = [f"{name}: it can be imported, but its functions cannot be called" for name in submodules if name not in _STOOD_IN]
    for path in _files_of(theirs):
        relative = path.relative_to(theirs)
        inside = path.relative_to(theirs / found.code_root) if path.is_relative_to(theirs / found.code_root) else relative
        place = f"src/{inside.as_posix()}" if path.suffix == ".py" else relative.as_posix()
        if path.stat().st_size > MAX_FILE_BYTES:
            left.append(f"{relative} ({path.stat().st_size >> 20} MiB): weights belong in [models] of cozy.toml")
        elif relative.as_posix() in _OURS or place in files:
            if path.suffix == ".py":
                left.append(f"{relative}: replaced by our file of this name")
        else:
            (target / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, target / place)
            files[place] = ""
    for place, text in files.items():
        if text or not (target / place).exists():
            (target / place).parent.mkdir(parents=True, exist_ok=True)
            (target / place).write_text(text, "utf-8")
    return sorted(files), left


# Packages that the libraries themselves install, by the name of their import. Code that uses them need not list them as requirements.
_BROUGHT_ALONG = {
    "cog": {"pydantic": "pydantic", "requests": "requests", "typing_extensions": "typing-extensions", "yaml": "pyyaml"},
    "litserve": {
        **{name: name for name in ("fastapi", "pydantic", "starlette", "httpx")},
        "typing_extensions": "typing-extensions",
    },
    "bentoml": {
        **{name: name for name in ("pydantic", "numpy", "httpx", "aiohttp", "starlette", "attrs", "cattrs", "packaging")},
        "annotated_types": "annotated-types",
        "typing_extensions": "typing-extensions",
        "yaml": "pyyaml",
        "attr": "attrs",
    },
    "runpod": {name: name for name in ("aiohttp", "requests", "boto3", "fastapi", "pydantic")},
}


def _distribution(requirement: str) -> str:
    """`pillow` for `Pillow>=10`."""
    return re.split(r"[\s\[<>=!~;@]", requirement, maxsplit=1)[0].lower().replace("_", "-")


def _brought_along(library: str, theirs: Path) -> set[str]:
    """Packages that their code imports and that their library has installed so far."""
    imported = set()
    for _, module in modules_in(theirs):
        for node in ast.walk(module):
            if isinstance(node, ast.Import):
                imported |= {each.name.partition(".")[0] for each in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                imported.add(node.module.partition(".")[0])
    return {package for name, package in _BROUGHT_ALONG[library].items() if name in imported}


def main_module(found: Found) -> str:
    """The text of the module with the functions."""
    body = "\n\n".join(_function(each, _python_name(each, found), several=len(found.functions) > 1) for each in found.functions)
    text = f"{found.setup}\n\n\n{body}"
    head = [f'"""Calls the code of a {found.library} project, which is in `src` unchanged."""', ""]
    standard = [name for name in ("asyncio", "functools", "pathlib", "sys") if f"{name}." in text]
    head += [f"import {name}" for name in standard]
    streams = [name for name in ("AsyncIterator", "Iterator") if re.search(rf"\b{name}\[", text)]
    head += [f"from collections.abc import {', '.join(streams)}"] if streams else []
    typed = [name for name in ("Annotated", "Any", "Literal") if re.search(rf"\b{name}\b", text)]
    head += [f"from typing import {', '.join(typed)}"] if typed else []
    ours = [
        name
        for name in ("ActionContext", "Asset", "FatalError", "ResourceRequirements", "worker_function")
        if re.search(rf"\b{name}\b", text)
    ]
    first, _, rest = found.setup.partition("\n")
    body = f"{rest.strip()}\n\n\n{body}" if rest.strip() else body
    imports = ["import msgspec", f"from gen_worker import {', '.join(ours)}", "", first]
    return "\n".join([*head, *([""] if head[-1] else []), *imports, "", "", body.strip(), ""])


def _python_name(each: FoundFunction, found: Found) -> str:
    """The function's own name, followed by `_` if their code uses that name in our module; both give the same slug."""
    is_taken = re.search(rf"import {each.name}$|def {each.name}\(", found.setup, re.MULTILINE)
    return f"{each.name}_" if is_taken else each.name


def _function(each: FoundFunction, name: str, *, several: bool) -> str:
    prefix = "".join(part.capitalize() for part in slugify(each.name).split("-")) if several else ""
    payload, output = f"{prefix}Input", f"{prefix}{'Delta' if each.output.kind == 'stream' else 'Output'}"
    given = {"file": "Asset", "files": "list[Asset]"}.get(each.output.kind, each.output.type)
    field = "chunk" if each.output.kind == "stream" else "output"
    made = [_field(item) for item in each.output.fields] if each.output.kind == "object" else [f"    {field}: {given}"]
    lines = [f"class {payload}(msgspec.Struct, kw_only=True):"]
    lines += [_field(item) for item in each.fields] or ["    pass"]
    lines += ["", "", f"class {output}(msgspec.Struct):", *made, "", ""]
    limit = f"ResourceRequirements(max_concurrency={each.max_concurrency})" if each.max_concurrency else ""
    stream = "AsyncIterator" if each.is_async else "Iterator"
    result = f"{stream}[{output}]" if each.output.kind == "stream" else output
    lines += [
        f"@worker_function({limit})",
        f"{'async ' if each.is_async else ''}def {name}(ctx: ActionContext, payload: {payload}) -> {result}:",
    ]
    lines += [f'    """{each.doc.strip()}"""'] if each.doc and '"""' not in each.doc and "\\" not in each.doc else []
    values = [(item.name, _value(item.name, as_path=item.as_path, text=item.type)) for item in each.fields]
    keys = (
        "{" + _listed([f"{json.dumps(item.key or name)}: {value}" for item, (name, value) in zip(each.fields, values, strict=True)]) + "}"
    )
    if any(item.may_be_absent for item in each.fields):
        lines.append(f"    given = {{name: value for name, value in {keys}.items() if value is not msgspec.UNSET}}")
        keys = "given"
    call = each.call.format(arguments=_listed([f"{name}={value}" for name, value in values]), payload=keys)
    lines += list(_body(each, call, output))
    return "\n".join(lines) + "\n"


def _listed(items: list[str]) -> str:
    """On one line if that is short, otherwise one item a line."""
    if len(", ".join(items)) <= 60:
        return ", ".join(items)
    return "\n" + "".join(f"        {item},\n" for item in items) + "    "


def _field(item: FoundField) -> str:
    annotation = f"Annotated[{item.type}, msgspec.Meta({', '.join(item.meta)})]" if item.meta else item.type
    default = item.default
    if item.key:
        made = default.removeprefix("msgspec.field(").removesuffix(")") if default.startswith("msgspec.field(") else f"default={default}"
        default = f"msgspec.field(name={json.dumps(item.key)}{f', {made}' if default else ''})"
    return f"    {item.name}: {annotation}{f' = {default}' if default else ''}"


def _value(name: str, *, as_path: bool, text: str) -> str:
    value = f"payload.{name}"
    if not as_path:
        return value
    if text.startswith("list["):
        return f"[pathlib.Path(each) for each in {value}]"
    path = f"pathlib.Path({value})"
    return f"({path} if {value} is not None else None)" if "None" in text else path


def _body(each: FoundFunction, call: str, output: str) -> Iterator[str]:
    match each.output.kind:
        case "stream":
            yield f"    {'async ' if each.is_async else ''}for chunk in {call}:"
            yield f"        yield {output}(chunk)"
        case "file":
            yield f"    saved = pathlib.Path({call})"
            yield f'    return {output}(ctx.save_file(f"runs/{{ctx.run_id}}/outputs/{{saved.name}}", saved))'
        case "files":
            yield f"    saved = [pathlib.Path(each) for each in {call}]"
            yield '    refs = [f"runs/{ctx.run_id}/outputs/{number}-{each.name}" for number, each in enumerate(saved)]'
            yield f"    return {output}([ctx.save_file(ref, each) for ref, each in zip(refs, saved, strict=True)])"
        case "object":
            yield f"    result = {call}"
            values = [f"{item.name}={_saved(item)}" for item in each.output.fields]
            yield f"    return {output}({_listed(values)})"
        case _:
            yield f"    result = {call}"
            if each.output.type == "Any":
                yield '    if isinstance(result, dict) and result.get("error"):'
                yield '        raise FatalError(str(result["error"]))'
            yield f"    return {output}(result)"


def _saved(item: FoundField) -> str:
    """An attribute of `result`; a path is saved as a file."""
    value = f"result.{item.name}"
    if not item.as_path:
        return value
    if item.type.startswith("list["):
        return f'[ctx.save_file(f"runs/{{ctx.run_id}}/outputs/{{pathlib.Path(each).name}}", pathlib.Path(each)) for each in {value}]'
    saved = f'ctx.save_file(f"runs/{{ctx.run_id}}/outputs/{{pathlib.Path({value}).name}}", pathlib.Path({value}))'
    return f"{saved} if {value} is not None else None" if "None" in item.type else saved


def _example(function: FoundFunction) -> str:
    texts = {"str": "hello", "int": "1", "float": "1.0", "bool": "true", "Asset": "@FILE"}
    return "".join(f" -i {item.name}={texts.get(item.type, 'VALUE')}" for item in function.fields if not item.default)


def _test(functions: tuple[FoundFunction, ...]) -> str:
    names = sorted(slugify(each.name) for each in functions)
    return (
        '"""That the functions are there. Add calls: `def test_it(endpoint): endpoint.run(FUNCTION, {...})`."""\n\n'
        "from pathlib import Path\n\nfrom gen_worker.discover import discover_functions\n\n\n"
        "def test_functions():\n    found = discover_functions(Path(__file__).parents[1])\n"
        f"    assert sorted(each['name'] for each in found) == {names!r}\n"
    )


def _settings(functions: tuple[FoundFunction, ...]) -> str:
    return "".join(f"\n[functions.{slugify(each.name)}]\ntimeout_s = {each.timeout_s:g}\n" for each in functions if each.timeout_s)


def _files_of(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if path.is_file() and not any(part.startswith(".") or part in _NOT_COPIED for part in parts) and path.suffix != ".pyc":
            yield path
