"""LitServe projects: a subclass of `LitAPI` with `setup`, `decode_request`, `predict`, `encode_response`."""

import ast
from pathlib import Path

from gen_worker.project.taking_over.dict_keys import fields_read_from
from gen_worker.project.taking_over.found import Found, FoundField, FoundFunction, FoundOutput, TakeOverError, requirements_in
from gen_worker.project.taking_over.syntax import keywords_of, last_name, literal, methods_of, modules_in, yields
from gen_worker.project.taking_over.types import Types

STAND_IN = '''"""Takes the place of litserve, so that its programs are imported as they are. `run` starts nothing."""

from typing import Any


class LitAPI:
    """What it offers is in the subclass."""

    def __init__(self, **settings: Any) -> None:
        self.__dict__.update(settings)

    def setup(self, device: str) -> None: ...

    def decode_request(self, request: Any) -> Any:
        return request

    def encode_response(self, output: Any) -> Any:
        return output

    def log(self, key: str, value: Any) -> None:
        print(f"{key}: {value}")


class LitServer:
    def __init__(self, *arguments: Any, **settings: Any) -> None: ...

    def run(self, *arguments: Any, **settings: Any) -> None:
        """A worker of gen-worker serves."""


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    return type(name, (), {"__init__": lambda self, *arguments, **settings: None})
'''


def read(root: Path) -> Found:
    """Read a project; `TakeOverError` when it has another form."""
    for file, module in modules_in(root):
        for node in module.body:
            if isinstance(node, ast.ClassDef) and any(last_name(base) == "LitAPI" for base in node.bases):
                return _found(root, file, module, node)
    raise TakeOverError("no module has a class of the form: class MyAPI(litserve.LitAPI)")


def _found(root: Path, file: Path, module: ast.Module, api: ast.ClassDef) -> Found:
    methods = methods_of(api)
    if "predict" not in methods:
        raise TakeOverError(f"{file}: {api.name} has no method predict")
    where = f"{file}: {api.name}"
    types = Types(where)
    notes: list[str] = []
    decode, encode, predict = methods.get("decode_request"), methods.get("encode_response"), methods["predict"]
    fields = _fields(module, decode or predict, types, notes, where)
    settings: dict[str, ast.expr] = {}
    for node in ast.walk(module):
        if isinstance(node, ast.Call) and last_name(node) in ("LitServer", api.name):
            settings |= keywords_of(node)
            made = node if last_name(node) == api.name else None
            if made is not None and made.args:
                notes.append(f"{where}: the arguments that it is made with, {ast.unparse(made)}")
    is_stream = literal(settings.get("stream")) is True or yields(predict)
    if literal(settings.get("max_batch_size")) not in (None, 1):
        notes.append(
            f"{where}: batches of {literal(settings['max_batch_size'])}; a function takes them with @worker_function(batch=Batch(...))"
        )
    kept = {"max_batch_size", "stream", "timeout", "accelerator", "devices"}
    notes += [f"{where}: the setting {key}" for key in sorted(settings.keys() - kept)]
    notes += [f"{where}: {name}" for name in ("batch", "unbatch", "load", "save", "health") if name in methods]
    timeout = literal(settings.get("timeout"))
    call, is_async = "answer(payload={payload})", False
    if any(isinstance(each, ast.AsyncFunctionDef) for each in (decode, predict, encode) if each):
        raise TakeOverError(f"{where}: its methods are async; make them plain methods first")
    steps = ["api().decode_request(payload)" if decode else "payload"]
    lines = [f"from {file.stem} import {api.name}", "", "", "@functools.cache", f"def api() -> {api.name}:"]
    lines += ['    """Made and set up by the first run; later runs reuse it."""', f"    made = {api.name}()"]
    lines += ["    made.setup(device_name())"] * ("setup" in methods) + ["    return made", "", ""]
    lines += [
        "def device_name() -> str:",
        '    """The device for `setup`: cuda if their code has imported torch and torch finds a GPU."""',
    ]
    lines += ['    torch = sys.modules.get("torch")', '    return "cuda" if torch is not None and torch.cuda.is_available() else "cpu"']
    lines += ["", "", "def answer(payload: dict[str, Any]) -> Any:", '    """What LitServe does with one request."""']
    predicted = f"api().predict({steps[0]})"
    lines.append(f"    return api().encode_response({predicted})" if encode else f"    return {predicted}")
    function = FoundFunction(
        name="predict",
        call=call,
        fields=tuple(fields),
        output=FoundOutput(kind="stream" if is_stream else "value"),
        doc=ast.get_docstring(api) or ast.get_docstring(predict) or "",
        is_async=is_async,
        timeout_s=float(timeout) if isinstance(timeout, int | float) and not isinstance(timeout, bool) and timeout > 0 else None,
    )
    wanted, more = requirements_in(root)
    return Found(
        library="litserve",
        functions=(function,),
        setup="\n".join(lines),
        stand_in=STAND_IN,
        code_root=file.parent.as_posix(),
        dependencies=tuple(wanted),
        notes=(*notes, *types.notes, *more),
    )


def _fields(
    module: ast.Module, decode: ast.FunctionDef | ast.AsyncFunctionDef, types: Types, notes: list[str], where: str
) -> list[FoundField]:
    """Fields of the pydantic model in the request's annotation, otherwise of the keys that are read from it."""
    if len(decode.args.args) < 2:
        return []
    request = decode.args.args[1]
    models = {node.name: node for node in module.body if isinstance(node, ast.ClassDef)}
    model = models.get(last_name(request.annotation)) if request.annotation else None
    if model is not None:
        notes.append(f"{where}: {model.name} is a pydantic model; the function gets a dict: use request['name'] for request.name")
        return [
            types.field(each.target.id, each.annotation, None if last_name(each.value) == "Field" else each.value, keywords_of(each.value))
            for each in model.body
            if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name)
        ]
    fields, whole = fields_read_from(decode, request.arg)
    if whole:
        notes.append(f"{where}: {decode.name} hands its request on, so there may be more fields than those found; add them to Input")
    return fields
