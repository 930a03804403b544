"""Applies changes of an author's code while the runner serves: modules are imported again, loaded models stay.

If the code is broken, the error is reported and the last working version stays in service. A changed type changes the
schema at the next request for it.
"""

import asyncio
import importlib
import sys
from collections.abc import Mapping
from pathlib import Path

from gen_worker.dev.app import DevApp
from gen_worker.log import Log
from gen_worker.project.cozy_toml import CozyTomlError, find_cozy_toml, load_cozy_toml
from gen_worker.project.discovery import is_in_project
from gen_worker.project.served import Served, load_project
from gen_worker.project.source_tree import EVERY_PYTHON_FILE, SourceTree, Stamp, Watched, stamp_of
from gen_worker.project.variables import without_variables
from gen_worker.project.watching import follow_changes


class ProjectFiles:
    """The files that cozy.toml says to watch; while it is broken, those that it named last. `env`: the environment that
    the program was started with.
    """

    def __init__(self, root: Path, env: Mapping[str, str]) -> None:
        self.root = root
        self.env = env
        self._watched = Watched(root)
        self._toml: Stamp | None = None
        self.variables: frozenset[str] = frozenset()  # names in `[env]`
        self.former_variables: frozenset[str] = frozenset()  # names in an older version of the file

    @property
    def bases(self) -> tuple[Path, ...]:
        """The folders of the project's own modules."""
        return self._watched.bases

    def takes(self, path: str) -> bool:
        """Whether a file with this path would be watched."""
        return self._watched.takes(path)

    def read(self) -> SourceTree:
        """The current state of the files. Blocking."""
        path = find_cozy_toml(self.root, self.env)
        stamp = stamp_of(str(path)) if path else None
        if path is not None and stamp != self._toml:
            self._toml = stamp
            try:
                project = load_cozy_toml(path)
                self._watched = Watched(self.root, project.watch or EVERY_PYTHON_FILE)
                names = frozenset(project.env)
                self.former_variables = (self.former_variables | self.variables) - names
                self.variables = names
            except (CozyTomlError, OSError):  # reported when the project is loaded
                pass
        return self._watched.read()


async def watch(files: ProjectFiles, seen: dict[str, Stamp], app: DevApp, log: Log, *, polls: bool) -> None:
    """Reload whenever a watched file differs from `seen`, until cancelled.

    `seen` was recorded before the code was first read, so that a change since then is noticed.
    """

    async def take_up(changed: str) -> None:
        shown = str(Path(changed).relative_to(files.root)) if Path(changed).is_relative_to(files.root) else changed
        try:
            served = await asyncio.to_thread(reload_project, files)
        except Exception as exc:  # noqa: BLE001 - the boundary of the reload: the server beside it goes on
            text = str(exc) if isinstance(exc, ValueError) else f"{type(exc).__name__}: {exc}"
            log.error("reload.failed", changed=shown, error=text)
            app.refuse_code(text)
            return
        app.adopt(served.functions, served.models_by_function)
        await app.make_ready()
        log.info("reload.done", changed=shown, functions=sorted(spec.name for spec in served.functions))

    await follow_changes(files, seen, take_up, lambda text: log.note(f"note: {text}", "dev.polls", reason=text), polls=polls)


def reload_project(files: ProjectFiles) -> Served:
    """Discover again, after dropping the project's own modules; on failure the old ones are restored."""
    folders = [folder.resolve() for folder in files.bases]
    old = {name: module for name, module in list(sys.modules.items()) if _is_own(module, folders)}
    for name in old:
        del sys.modules[name]
    importlib.invalidate_caches()
    try:
        with without_variables(files.former_variables, files.variables, files.env):
            return load_project(files.root, files.env)
    except BaseException:
        sys.modules.update(old)
        raise


def _is_own(module: object, folders: list[Path]) -> bool:
    file = getattr(module, "__file__", None)
    return isinstance(file, str) and is_in_project(file, *folders)
