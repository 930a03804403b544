"""Take up changes of an author's code while the runner serves: modules are imported anew, loaded models stay.

The project's folder is the author's: folders in it vanish while they are read, cannot be read, or link to themselves. None of that may
end the watch, which shares a task group with the server: what cannot be read counts as not there, and a failed look is tried again.
"""

import asyncio
import importlib
import os
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from gen_worker.dev.app import DevApp
from gen_worker.log import Log
from gen_worker.project.served import Served, load_project

POLL_S = 0.5
REST = 10  # times as long as a look took is rested, so that a folder of very many files does not keep a processor busy
MAX_REST_S = 3.0
MAX_FOLDERS = 20_000
_SKIPPED = {"__pycache__", "node_modules", "outputs", "dist", "build"}

Snapshot = dict[str, tuple[int, int]]


async def watch(root: Path, env: Mapping[str, str], seen: Snapshot, app: DevApp, log: Log) -> None:
    """Reload whenever a source file of the project is not as `seen`, until cancelled. Broken code is reported; the last good one goes on.

    `seen` is from before the code was read for the first time: what was changed since then is a change.
    """
    while True:
        began_s = time.monotonic()
        rest_s = POLL_S
        try:
            now = await asyncio.to_thread(snapshot, root)
            rest_s = min(max(POLL_S, REST * (time.monotonic() - began_s)), MAX_REST_S)
            if now != seen:
                before, seen = seen, now  # taken as seen even if what follows fails: the same state would fail again
                await _take_up(root, env, min(path for path, _ in before.items() ^ now.items()), app, log)
            seen = now
        except Exception as exc:  # noqa: BLE001 - the boundary of the watch: the server beside it goes on
            log.error("reload.failed", error=f"{type(exc).__name__}: {exc}")
        await asyncio.sleep(rest_s)


async def _take_up(root: Path, env: Mapping[str, str], changed: str, app: DevApp, log: Log) -> None:
    try:
        served = await asyncio.to_thread(reload_project, root, env)
    except ValueError as exc:
        log.error("reload.failed", changed=changed, error=str(exc))
        app.refuse_code(str(exc))
        return
    app.adopt(served.functions, served.models_by_function)
    app.import_ahead()
    log.info("reload.done", changed=changed, functions=sorted(spec.name for spec in served.functions))


def snapshot(root: Path) -> Snapshot:
    """Modification time (ns) and size of the project's Python files and cozy.toml, by their path in the project."""
    found: Snapshot = {}
    visited: set[tuple[int, int]] = set()
    folders = [str(root)]
    while folders and len(visited) < MAX_FOLDERS:
        folder = folders.pop()
        try:
            status = Path(folder).stat()
        except OSError:
            continue
        if (status.st_dev, status.st_ino) in visited:  # a link to a folder that was read already, maybe one above it
            continue
        visited.add((status.st_dev, status.st_ino))
        for entry in _entries(folder):
            if entry.name.startswith(".") or entry.name in _SKIPPED:
                continue
            try:
                if entry.is_dir():
                    if not Path(entry.path, "pyvenv.cfg").exists():
                        folders.append(entry.path)
                elif entry.name.endswith(".py") or entry.name == "cozy.toml":
                    file = entry.stat()
                    found[os.path.relpath(entry.path, root)] = (file.st_mtime_ns, file.st_size)
            except (OSError, ValueError):  # it has just gone, may not be read, or is a link to itself
                continue
    return found


def _entries(folder: str) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            yield from list(entries)
    except OSError:
        return


def reload_project(root: Path, env: Mapping[str, str]) -> Served:
    """Discover again, with the project's own modules forgotten; on failure the old modules come back."""
    old = {name: module for name, module in list(sys.modules.items()) if _is_under(getattr(module, "__file__", None), root)}
    for name in old:
        del sys.modules[name]
    importlib.invalidate_caches()
    try:
        return load_project(root, env)
    except BaseException:
        sys.modules.update(old)
        raise


def _is_under(file: object, root: Path) -> bool:
    if not isinstance(file, str):
        return False
    try:
        path = Path(file).resolve()
    except (OSError, RuntimeError):  # a loop of links
        return False
    return path.is_relative_to(root) and "site-packages" not in path.parts
