"""Imports an author's `main` and reads every marked function in the imported modules."""

import contextlib
import importlib
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import NoReturn

import msgspec

from gen_worker.authoring.functions import mark_of
from gen_worker.authoring.signature import FunctionSpec, SignatureError, location_of, read_signature
from gen_worker.contract.manifest import Manifest
from gen_worker.frames import is_ours
from gen_worker.project.cozy_toml import CozyToml, check_function_names, find_cozy_toml, load_cozy_toml
from gen_worker.project.import_errors import EarlyExitError, import_problem
from gen_worker.project.manifest import manifest_of
from gen_worker.project.quiet import drop_unhelpful_warnings
from gen_worker.project.standins import StandInUsedError, missing_packages, stand_ins
from gen_worker.project.variables import set_variables

Warn = Callable[[str], None]


class DiscoveryError(ValueError):
    """The project's functions cannot be discovered; the message contains every problem found."""


class Discovered(msgspec.Struct, frozen=True):
    """A project and its functions, ordered by module and name."""

    project: CozyToml
    specs: tuple[FunctionSpec, ...]
    manifest: Manifest
    stood_in: tuple[str, ...] = ()


def discover(root: Path, env: Mapping[str, str], *, with_stand_ins: bool = False) -> Discovered:
    """Read cozy.toml in `root` (or where `env` says), import its `main`, read the marked functions.

    With `with_stand_ins`, declared packages that are not installed are imported as names only: right for baking a
    manifest, wrong for running the functions. `[env]` is set in this process, except for variables in `env`. Raises
    `CozyTomlError`, `DiscoveryError` or `SignatureError`, all of them `ValueError`.
    """
    root = root.resolve()
    path = find_cozy_toml(root, env)
    project = load_cozy_toml(path or root / "cozy.toml")
    add_to_path(root)
    set_variables(project.env, env)
    with stand_ins(missing_packages(root) if with_stand_ins else ()) as stood_in:
        modules = _import_main(project, root)
        specs = read_specs(modules)
        check_function_names(project, [spec.name for spec in specs])
        manifest = manifest_of(project, specs)  # this checks every rule about models and schemas once
    return Discovered(project, specs, manifest, tuple(sorted(stood_in)))


def function_entries(root: Path, env: Mapping[str, str], main_module: str | None = None) -> Manifest:
    """The manifest. Its functions are those of `main_module`, if given, instead of cozy.toml's `main`."""
    folder = root.resolve()
    project = load_cozy_toml(find_cozy_toml(folder, env) or folder / "cozy.toml")
    add_to_path(folder)
    set_variables(project.env, env)
    if main_module:
        project = msgspec.structs.replace(project, main=main_module)
    with stand_ins(missing_packages(folder)):
        return manifest_of(project, read_specs(_import_main(project, folder)))


def add_to_path(root: Path) -> None:
    """Put `<root>/src` and `root` in front of `sys.path`."""
    for folder in (root, root / "src"):
        text = str(folder)
        if folder.is_dir() and text not in sys.path[:2]:
            sys.path.insert(0, text)


def import_modules(names: Iterable[str], root: Path | None = None) -> list[ModuleType]:
    """Import modules by name; `DiscoveryError` shows the author's line that failed, and its fix. Prints go to stderr.

    `root`: the project's folder, used to suggest module names.
    """
    drop_unhelpful_warnings()
    modules = []
    for name in names:
        try:
            with contextlib.redirect_stdout(sys.stderr), _early_exits_noticed():
                modules.append(importlib.import_module(name))
        except StandInUsedError as exc:
            raise DiscoveryError(str(exc)) from exc
        except KeyboardInterrupt:
            raise
        except BaseException as exc:
            raise DiscoveryError(import_problem(name, exc, root)) from exc
    return modules


@contextlib.contextmanager
def _early_exits_noticed() -> Iterator[None]:
    """Inside this block, `os._exit` in this thread raises an error with its position. Otherwise the command or the
    worker would end silently with the author's status. Forked children and our own signal handlers still end as
    intended.
    """
    end, process, thread = os._exit, os.getpid(), threading.get_ident()

    def refuse(status: int) -> NoReturn:
        if os.getpid() != process or threading.get_ident() != thread or is_ours(sys._getframe(1).f_code.co_filename):
            end(status)
        raise EarlyExitError(f"it calls os._exit({status}), which ends the process")

    os._exit = refuse
    try:
        yield
    finally:
        os._exit = end


def read_specs(modules: Sequence[ModuleType]) -> tuple[FunctionSpec, ...]:
    """Specs of all marked functions in these modules; each function once, in the first module that has it."""
    specs: list[FunctionSpec] = []
    problems: list[str] = []
    seen: set[tuple[str, str]] = set()
    for module in modules:
        for function in list(vars(module).values()):
            if not callable(function) or mark_of(function) is None:
                continue
            identity = (function.__module__, function.__qualname__)
            if identity in seen:
                continue
            seen.add(identity)
            try:
                specs.append(read_signature(function, module.__name__))
            except SignatureError as exc:
                problems.append(str(exc))
    problems.extend(_collisions(specs))
    if problems:
        raise DiscoveryError("\n".join(problems))
    return tuple(specs)


def _import_main(project: CozyToml, root: Path) -> list[ModuleType]:
    """Import `main`. Returns the project's modules that this loaded, ordered by name."""
    import_modules([project.main], root)
    return [module for _, module in sorted(_modules_under(root))]


def _modules_under(root: Path) -> Iterator[tuple[str, ModuleType]]:
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if isinstance(file, str) and name != "__main__" and is_in_project(file, root):
            yield name, module


def is_in_project(file: str, *roots: Path) -> bool:
    """Whether a module's file is in one of these folders, even if it or a parent folder is a symbolic link that leads elsewhere."""
    try:
        paths = (Path(os.path.abspath(file)), Path(file).resolve())  # noqa: PTH100 - keeps links, and takes `..` away
    except (OSError, RuntimeError, ValueError):  # a loop of symbolic links
        return False
    return any(path.is_relative_to(root) and "site-packages" not in path.relative_to(root).parts for path in paths for root in roots)


def _collisions(specs: Sequence[FunctionSpec]) -> Iterator[str]:
    by_name: dict[str, FunctionSpec] = {}
    for spec in specs:
        other = by_name.setdefault(spec.name, spec)
        if other is not spec:
            yield (
                f"{location_of(spec.function)}: multiple functions normalize to the same function name '{spec.name}': "
                f"'{other.python_name}' ({location_of(other.function)}) and '{spec.python_name}'\n  fix: rename one of them"
            )
