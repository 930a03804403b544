"""BentoML projects: a class marked with `@bentoml.service`; its methods marked with `@bentoml.api` are the functions."""

import ast
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gen_worker.project.taking_over.found import PYTHON_VERSIONS, Found, FoundFunction, TakeOverError, requirements_in, yaml_in
from gen_worker.project.taking_over.syntax import keywords_of, last_name, literal, methods_of, modules_in, yields
from gen_worker.project.taking_over.types import Types

STAND_IN = '''"""Takes the place of bentoml, so that its programs are imported as they are."""

import contextlib
from typing import Any


def _mark(*arguments: Any, **settings: Any) -> Any:
    """Leaves what it marks as it is, with and without parentheses."""
    if len(arguments) == 1 and not settings and callable(arguments[0]):
        return arguments[0]
    return lambda marked: marked


service = api = task = on_deployment = on_startup = on_shutdown = _mark


def depends(service: Any = None, **settings: Any) -> Any:
    raise NotImplementedError("services that call services were not converted; use ctx.invoke")


def importing() -> Any:
    """The packages are installed here, so an import that fails is an error."""
    return contextlib.nullcontext()


class _Ignored:
    """Takes any call, such as `images.Image(...).python_packages(...)`: pyproject.toml and the Dockerfile say it now."""

    def __call__(self, *arguments: Any, **settings: Any) -> "_Ignored":
        return self

    def __getattr__(self, name: str) -> "_Ignored":
        if name.startswith("__"):
            raise AttributeError(name)
        return self


class _NotConverted:
    def __init__(self, name: str) -> None:
        self._name = name

    def __call__(self, *arguments: Any, **settings: Any) -> Any:
        raise NotImplementedError(f"{self._name} was not converted")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _NotConverted(f"{self._name}.{name}")


class models(_NotConverted):
    @staticmethod
    def HuggingFaceModel(model_id: str, **settings: Any) -> str:
        """The repository's name, which `from_pretrained` takes, too."""
        return model_id


images, validators, models = _Ignored(), _Ignored(), models("bentoml.models")


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    return _NotConverted(f"bentoml.{name}")
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
    image = _Image(root)
    image.read_calls(module)
    image.read_bentofile()
    # `with bentoml.importing():` only says which imports a client does not need.
    kept = {"service", "api", "task", "importing", "images", "validators"}
    notes += [f"{where}: the setting {key}" for key in sorted(settings.keys() - {"traffic", "name", "image"})]
    for node in ast.walk(module):
        if isinstance(node, ast.Attribute) and last_name(node.value) == "bentoml" and node.attr not in {*kept, "models"}:
            notes.append(f"{file}: bentoml.{node.attr}, line {node.lineno}")
        if isinstance(node, ast.Call) and last_name(node) == "HuggingFaceModel":
            notes.append(
                f"{file}: their code downloads {ast.unparse(node.args[0]) if node.args else 'a model'}; declare it in [models] of cozy.toml"
            )
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
    lines = [f"from {file.stem} import {service.name}", "", "", "@functools.cache", f"def service() -> {service.name}:"]
    lines += ['    """Made by the first run; later runs reuse it."""', f"    return {service.name}()"]
    return Found(
        library="bentoml",
        functions=tuple(functions),
        setup="\n".join(lines),
        stand_in=STAND_IN,
        code_root=file.parent.as_posix(),
        dependencies=tuple(dict.fromkeys(image.packages)),
        system_packages=tuple(dict.fromkeys(image.system_packages)),
        python_version=image.python_version,
        notes=tuple(dict.fromkeys([*notes, *image.notes])),
    )


class _Image:
    """What an image needs, according to requirements.txt, to `bentoml.images.Image(...)`, and to bentofile.yaml."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.packages, self.notes = requirements_in(root)
        self.system_packages: list[str] = []
        self.python_version = ""

    def read_calls(self, module: ast.Module) -> None:
        """The calls chained to `bentoml.images.Image(...)`, whose arguments are literals."""
        for node in ast.walk(module):
            if not isinstance(node, ast.Call) or "images.Image(" not in f"{ast.unparse(node.func)}(":
                continue
            given = [literal(each) for each in node.args]
            match last_name(node):
                case "Image":
                    self._python(literal(keywords_of(node).get("python_version")))
                    self._note(f"the image's {key}" for key in keywords_of(node) if key != "python_version")
                case "python_packages":
                    self.packages += map(str, given)
                case "system_packages":
                    self.system_packages += map(str, given)
                case "requirements_file":
                    self._requirements(str(given[0]) if given else "")
                case other:
                    self._note([f"the image's {other}"])

    def read_bentofile(self) -> None:
        """`python.packages`, `python.requirements_txt`, `docker.python_version` and `docker.system_packages`."""
        if not (self._root / "bentofile.yaml").is_file():
            return
        config = yaml_in(self._root / "bentofile.yaml")
        python, docker = config.get("python") or {}, config.get("docker") or {}
        self.packages += map(str, python.get("packages") or [])
        self._requirements(str(python.get("requirements_txt") or ""))
        self.system_packages += map(str, docker.get("system_packages") or [])
        self._python(docker.get("python_version"))
        self._note(f"bentofile.yaml: {key}" for key in ("models", "conda", "envs") if config.get(key))
        self._note(f"bentofile.yaml: python.{key}" for key in sorted(python.keys() - {"packages", "requirements_txt", "lock_packages"}))
        self._note(f"bentofile.yaml: docker.{key}" for key in sorted(docker.keys() - {"python_version", "system_packages"}))

    def _requirements(self, name: str) -> None:
        if name.removeprefix("./") not in ("", "requirements.txt"):
            wanted, notes = requirements_in(self._root, (name,))
            self.packages += wanted
            self.notes += notes

    def _python(self, version: Any) -> None:
        minor = ".".join(str(version or "").split(".")[:2])
        if minor in PYTHON_VERSIONS:
            self.python_version = minor
        elif minor:
            self._note([f"Python {version} of the image, which has one of {', '.join(PYTHON_VERSIONS)}"])

    def _note(self, lines: Iterable[str]) -> None:
        self.notes += lines


def _field_given(annotation: ast.expr | None) -> dict[str, ast.expr]:
    """The limits in `Annotated[int, Field(ge=1)]`, and in annotated_types' `Ge(1)`."""
    found: dict[str, ast.expr] = {}
    if isinstance(annotation, ast.Subscript) and last_name(annotation.value) == "Annotated" and isinstance(annotation.slice, ast.Tuple):
        for each in annotation.slice.elts[1:]:
            found |= {key: value for key, value in keywords_of(each).items() if key != "default"}
            if isinstance(each, ast.Call) and last_name(each) in ("Ge", "Le", "Gt", "Lt") and each.args:
                found[last_name(each).lower()] = each.args[0]
    return found
