"""Explains why the import of an author's module failed: the position in the author's own code, the line, and the fix for this cause."""

import builtins
import importlib.metadata
import inspect
import re
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

from gen_worker.authoring.assets import Asset
from gen_worker.authoring.batch import Batch
from gen_worker.authoring.clamp import Clamp
from gen_worker.authoring.functions import ResourceRequirements, worker_function, worker_websocket
from gen_worker.frames import author_place, shown_path, source_line
from gen_worker.injection import ModelRef, model_loader
from gen_worker.names import did_you_mean, nearest
from gen_worker.project.cozy_toml import FUNCTION_KEYS, RESOURCE_KEYS
from gen_worker.project.standins import TORCH_EXTRA, declared_for
from gen_worker.project.toml_lines import line_of_key

_UNKNOWN_ARGUMENT = re.compile(r"(?:([\w.]+)\(\) got an u|U)nexpected keyword argument '(\w+)'")
_OUR_CALLS = {
    call.__name__: call for call in (worker_function, worker_websocket, ResourceRequirements, Batch, Clamp, ModelRef, model_loader, Asset)
}
_WORK_AT_IMPORT = "a module must be importable without doing its work; move that into the function"


class EarlyExitError(BaseException):
    """`os._exit` was called while a module was imported. It is not an `Exception`, so that the author's own handlers do not catch it."""


# Keep the message as it is: no installed name is meant.
_WELL_KNOWN = frozenset({*TORCH_EXTRA, "diffusers", "transformers", "accelerate", "numpy", "PIL", "cv2", "onnxruntime", "peft"})


def import_problem(name: str, exc: BaseException, root: Path | None = None) -> str:
    """The message for `exc`, raised by the import of module `name` of the project in `root`."""
    if isinstance(exc, SyntaxError):
        return f"{_syntax_place(exc)}importing {name!r} failed: {_shown(exc)}{_excerpt(exc)}\n  fix: {_syntax_fix(exc)}"
    problem, fix = _cause(name, exc, root)
    place = _main_in_cozy_toml(name, exc, root) or author_place(exc)
    where, line = "", ""
    if place is not None:
        filename, number, _ = place
        where = f"{shown_path(filename)}:{number}: "
        text = source_line(filename, number)
        line = f"\n    {text}" if text else ""
    return f"{where}{problem}{line}\n  fix: {fix}"


def _is_main_missing(name: str, missing: str) -> bool:
    return bool(missing) and (name == missing or name.startswith(f"{missing}."))


def _main_in_cozy_toml(name: str, exc: BaseException, root: Path | None) -> tuple[str, int, str] | None:
    """cozy.toml names a module that does not exist; none of the author's code has run yet."""
    if root is None or not isinstance(exc, ModuleNotFoundError) or not _is_main_missing(name, exc.name or ""):
        return None
    path = root / "cozy.toml"
    line = line_of_key(path, "main")
    return None if line is None else (str(path), line, "main")


def _cause(name: str, exc: BaseException, root: Path | None) -> tuple[str, str]:
    failed = f"importing {name!r} failed: {_shown(exc)}"
    match exc:
        case ModuleNotFoundError():
            return _missing_module(name, exc, root)
        case ImportError() if "circular import" in str(exc):
            return failed, "two modules import each other; move one of the two imports into the function that needs it"
        case ImportError() if exc.name and exc.name in sys.modules:
            return _missing_name(failed, str(exc), sys.modules[exc.name])
        case AttributeError() if isinstance(exc.obj, ModuleType) and exc.name:
            return _missing_name(failed, f"cannot import name {exc.name!r}", exc.obj)
        case NameError():
            return _undefined(failed, exc)
        case TypeError() if found := _UNKNOWN_ARGUMENT.search(str(exc)):
            return _unknown_argument(failed, found[1] or _called(exc, found[2]), found[2])
        case TypeError() | ValueError() if found := re.search(r"(?i)default value .*mutable|mutable default|as a default value", str(exc)):
            return failed, "give each object a default of its own: field: list[str] = msgspec.field(default_factory=lambda: [...])"
        case TypeError() if "cannot follow optional field" in str(exc) or "non-default argument" in str(exc):
            return failed, "put fields without a default first, or write class Input(msgspec.Struct, kw_only=True)"
        case TypeError() if "marks a plain function" in str(exc) or "takes a ResourceRequirements" in str(exc):
            return failed, "write @worker_function() above def f(ctx: ActionContext, payload: Input) -> Output"
        case TypeError() if "metaclass conflict" in str(exc):
            return failed, "a msgspec.Struct cannot also be a pydantic model or another class with a metaclass; take msgspec.Struct alone"
        case KeyError() if _reads_environment(exc):
            key = exc.args[0] if exc.args else "KEY"
            return (
                f"importing {name!r} failed: the environment variable {key!r} is not set",
                f'read it inside the function, or give it a value in cozy.toml: [env] {key} = "..."; to set it now: {key}=... cozyctl ...',
            )
        case FileNotFoundError() if isinstance(exc.filename, str) and not Path(exc.filename).is_absolute():
            return failed, f"a relative path depends on the current folder; write Path(__file__).parent / {exc.filename!r}"
        case SystemExit() | EarlyExitError():
            return failed, "a module must not end the process; remove it, or put it below: if __name__ == '__main__':"
        case _:
            return failed, _WORK_AT_IMPORT


def _missing_module(name: str, exc: ModuleNotFoundError, root: Path | None) -> tuple[str, str]:
    missing = exc.name or ""
    if _is_main_missing(name, missing):
        known = _project_modules(root) if root is not None else []
        hint = did_you_mean(name, known)
        return (
            f"main = {name!r} in cozy.toml: no module {missing!r} in this folder or its src/.{hint}".removesuffix("." if not hint else ""),
            "correct main, or create the module",
        )
    if "is not a package" in str(exc):
        top = missing.partition(".")[0]
        return (
            f"importing {name!r} failed: {exc}",
            f"a file of yours has the name {top!r} and hides the package; rename it, or correct the import",
        )
    package = missing.partition(".")[0]
    if package in sys.modules and package != missing:  # the package exists, but not this module in it
        parent = sys.modules.get(missing.rpartition(".")[0], sys.modules[package])
        last = missing.rpartition(".")[2]
        known = sorted({*_submodules(parent), *_public(parent)})
        own = [each for each in _public(sys.modules[package]) if each == last]
        hint = did_you_mean(last, known)
        near = nearest(last, known)
        fix = (
            f"from {package} import {last}"
            if own
            else re.sub(rf"\b{last}\b", near, _line_of(exc), count=1)
            if near
            else f"{parent.__name__} has: {', '.join(_submodules(parent)[:20])}"
        )
        return f"importing {name!r} failed: there is no module {missing!r}.{hint}".removesuffix("."), fix
    declared = declared_for(root, package) if root is not None else None
    command = (
        "pip install 'gen-worker[torch]'"
        if package in TORCH_EXTRA
        else f"uv add {declared or package}, or pip install {declared or package}"
    )
    hint = ""
    if package not in _WELL_KNOWN and declared is None:
        # Among hundreds of modules, some name is always a bit alike: `pydoc` for pydantic.
        hint = did_you_mean(package, [*_installed_modules(), *(_project_modules(root) if root is not None else ())], likeness=0.75)
    return (
        f"importing {name!r} needs the package {missing!r}, which is not installed{'.' + hint if hint else ''}",
        ("correct the name, or " if hint else "") + f"install it ({command}) and keep it in [project] dependencies of pyproject.toml",
    )


def _line_of(exc: BaseException) -> str:
    place = author_place(exc)
    return source_line(place[0], place[1]) if place else ""


def _missing_name(failed: str, detail: str, module: ModuleType) -> tuple[str, str]:
    found = re.search(r"name '([^']+)'", detail)
    wanted = found[1] if found else ""
    names = _public(module)
    near = nearest(wanted, names) or nearest(wanted.lower(), [each.lower() for each in names])
    near = next((each for each in names if each == near or each.lower() == near), None)
    if near:
        return f"{failed}. Did you mean {near!r}?", f"from {module.__name__} import {near}"
    listed = (
        f"{module.__name__} has: {', '.join(names[:40])}"
        if len(names) <= 40
        else f"look the name up in the documentation of {module.__name__}"
    )
    return failed, listed


def _unknown_argument(failed: str, called: str, argument: str) -> tuple[str, str]:
    parts = called.split(".")
    name = next((part for part in parts if part in _OUR_CALLS), "")
    target = _OUR_CALLS.get(name)
    if target is None:
        return failed, f"remove {argument!r}, or look its name up"
    known = [each for each in inspect.signature(inspect.unwrap(target)).parameters if each != "self"]
    problem = f"{failed}.{did_you_mean(argument, known)} {name} takes: {', '.join(known)}"
    if name == "ResourceRequirements" and (near := nearest(argument, RESOURCE_KEYS)):
        return problem, f"write {near} = ... under [resources] in cozy.toml"
    near = nearest(argument, FUNCTION_KEYS)
    if name in ("worker_function", "worker_websocket"):
        if nearest(argument, ("max_concurrency",)):
            return (
                problem,
                f"write @{name}(ResourceRequirements(max_concurrency=...)), or max_concurrency under [functions.NAME] in cozy.toml",
            )
        if near and not nearest(argument, known):
            return problem, f"write {near} = ... under [functions.NAME] in cozy.toml"
    return problem, f"write one of: {', '.join(f'{each}=' for each in known)}" if known else f"remove {argument!r}"


def _called(exc: BaseException, argument: str) -> str:
    """Which of our calls gets this argument on the author's failing line, if the message does not say."""
    line = _line_of(exc)
    before = line.partition(f"{argument}=")[0].partition(f"{argument} =")[0]
    names = [name for name in _OUR_CALLS if f"{name}(" in before]
    return max(names, key=lambda name: before.rindex(f"{name}("), default="")


def _reads_environment(exc: BaseException) -> bool:
    frames = list(traceback.walk_tb(exc.__traceback__))
    return bool(frames) and frames[-1][0].f_globals.get("__name__") == "os"


def _undefined(failed: str, exc: NameError) -> tuple[str, str]:
    name = exc.name or ""
    ours = [each for each in _public(sys.modules["gen_worker"]) if each == name] if "gen_worker" in sys.modules else []
    if ours:
        return failed, f"from gen_worker import {name}"
    if name in _installed_modules():
        return failed, f"import {name}"
    frames = list(traceback.walk_tb(exc.__traceback__))
    known = {*dir(builtins), *(frames[-1][0].f_globals if frames else ()), *(frames[-1][0].f_locals if frames else ())}
    hint = did_you_mean(name, sorted(each for each in known if not each.startswith("__")))
    return f"{failed}{'.' + hint if hint else ''}", f"define {name!r} above this line, or import it"


def _public(module: ModuleType) -> list[str]:
    return sorted(getattr(module, "__all__", None) or [name for name in dir(module) if not name.startswith("_")])


def _submodules(module: ModuleType) -> list[str]:
    folders = [Path(folder) for folder in getattr(module, "__path__", ())]
    found = {
        entry.stem
        for folder in folders
        if folder.is_dir()
        for entry in folder.iterdir()
        if entry.suffix == ".py" or (entry / "__init__.py").exists()
    }
    return sorted(name for name in found if not name.startswith("_"))


def _project_modules(root: Path) -> list[str]:
    found = []
    for base in (root / "src", root):
        for path in sorted(base.glob("*.py")) + sorted(base.glob("*/*.py")):
            parts = path.relative_to(base).with_suffix("").parts
            if all(part.isidentifier() for part in parts) and parts[0] != "src":
                found.append(".".join(parts).removesuffix(".__init__"))
    return found


def _installed_modules() -> Iterable[str]:
    found = {*importlib.metadata.packages_distributions(), *sys.stdlib_module_names, *(name.partition(".")[0] for name in sys.modules)}
    return sorted(name for name in found if not name.startswith("_"))


def _shown(exc: BaseException) -> str:
    if isinstance(exc, EarlyExitError):
        return str(exc)
    text = exc.msg if isinstance(exc, SyntaxError) else str(exc)
    if isinstance(exc, ImportError):  # "... from 'gen_worker' (/usr/lib/.../__init__.py)"
        text = re.sub(r" \(\S*[\\/]\S*\)$", "", text)
    return f"{type(exc).__name__}: {text}" if text else type(exc).__name__


def _syntax_place(exc: SyntaxError) -> str:
    return f"{shown_path(exc.filename)}:{exc.lineno}: " if exc.filename and exc.lineno else f"{exc.filename}: " if exc.filename else ""


def _excerpt(exc: SyntaxError) -> str:
    """The line with a mark under the error."""
    if not exc.text:
        return ""
    text = exc.text.rstrip("\n")
    shown = text.lstrip()
    if not exc.offset:
        return f"\n    {shown}"
    start = max(0, exc.offset - 1 - (len(text) - len(shown)))
    end = (exc.end_offset or 0) - 1 - (len(text) - len(shown)) if exc.end_lineno == exc.lineno else start
    return f"\n    {shown}\n    {' ' * min(start, len(shown))}{'^' * max(1, min(end, len(shown)) - start)}"


def _syntax_fix(exc: SyntaxError) -> str:
    if isinstance(exc, TabError):
        return "indent with spaces only"
    if isinstance(exc, IndentationError):
        return "correct the indentation of this line"
    if exc.msg and ("null bytes" in exc.msg or "codec can't decode" in exc.msg or "utf-8" in exc.msg.lower()):
        return "save the file as UTF-8 text"
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    return f"correct the syntax; this is Python {version}"
