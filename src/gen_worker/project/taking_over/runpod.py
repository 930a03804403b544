"""RunPod serverless workers: `runpod.serverless.start({"handler": handler})`, where the handler reads `job["input"]`."""

import ast
from collections.abc import Iterator
from pathlib import Path

from gen_worker.project.taking_over.dict_keys import fields_read_from
from gen_worker.project.taking_over.found import Found, FoundFunction, FoundOutput, TakeOverError, requirements_in
from gen_worker.project.taking_over.syntax import last_name, literal, modules_in, yields

STAND_IN = '''"""Takes the place of runpod, so that its programs are imported as they are. `start` starts nothing."""

from typing import Any


class _Serverless:
    def start(self, config: dict[str, Any]) -> None:
        """A worker of gen-worker calls the handler."""

    def progress_update(self, job: dict[str, Any], progress: Any) -> None:
        print(f"progress: {progress}")


serverless = _Serverless()
'''


def read(root: Path) -> Found:
    """Read a project; `TakeOverError` when it has another form."""
    for file, module in modules_in(root):
        for config in _starts(module):
            return _found(root, file, module, config)
    raise TakeOverError('no module calls runpod.serverless.start({"handler": ...})')


def _starts(module: ast.Module) -> Iterator[dict[str, ast.expr]]:
    for node in ast.walk(module):
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("serverless.start") and node.args:
            given = node.args[0]
            if isinstance(given, ast.Name):
                given = next(
                    (each.value for each in ast.walk(module) if isinstance(each, ast.Assign) and last_name(each.targets[0]) == given.id),
                    given,
                )
            if isinstance(given, ast.Dict):
                yield {str(literal(key)): value for key, value in zip(given.keys, given.values, strict=True) if key is not None}


def _found(root: Path, file: Path, module: ast.Module, config: dict[str, ast.expr]) -> Found:
    name = last_name(config.get("handler"))
    functions = {each.name: each for each in module.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)}
    handler = functions.get(name)
    if handler is None or not handler.args.args:
        raise TakeOverError(f"{file}: the handler {name or 'that is started'} is not a function of this module")
    job = handler.args.args[0].arg
    fields, is_whole = fields_read_from(handler, job, "input")
    where = f"{file}: {name}"
    notes = [f"{where}: {each}" for each in ("concurrency_modifier", "refresh_worker", "rp_args") if each in config]
    notes += [f"{where}: fields of the job other than input" for _ in [1] if _reads_more(handler, job)]
    if is_whole:
        notes.append(f"{where}: it hands its whole input on, so there may be more fields than those found; add them to Input")
    if "progress_update" in ast.unparse(module):
        notes.append(f"{where}: progress_update prints; call ctx.progress instead")
    if "rp_upload" in ast.unparse(module):
        notes.append(f"{where}: rp_upload; save files with ctx.save_file")
    wanted, more = requirements_in(root, ("requirements.txt", "builder/requirements.txt"))
    is_stream = yields(handler)
    is_async = isinstance(handler, ast.AsyncFunctionDef)
    waits = "await " if is_async and not is_stream else ""
    function = FoundFunction(
        name=name,
        call=f'{waits}{name}({{{{"id": ctx.run_id, "input": {{payload}}}}}})',
        fields=tuple(fields),
        output=FoundOutput(kind="stream" if is_stream else "value"),
        doc=ast.get_docstring(handler) or "",
        is_async=is_async,
    )
    return Found(
        library="runpod",
        functions=(function,),
        setup=f"from {file.stem} import {name}",
        stand_in=STAND_IN,
        code_root=file.parent.as_posix(),
        dependencies=tuple(wanted),
        notes=tuple(notes + more),
    )


def _reads_more(handler: ast.AST, job: str) -> bool:
    keys = [literal(node.slice) for node in ast.walk(handler) if isinstance(node, ast.Subscript) and last_name(node.value) == job]
    return any(key not in ("input", "id") for key in keys)
