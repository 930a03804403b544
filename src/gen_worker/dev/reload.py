"""Take up changes of an author's code while the runner serves: modules are imported anew, loaded models stay."""

import asyncio
import importlib
import sys
from pathlib import Path

from gen_worker.dev.app import DevApp
from gen_worker.dev.project import Served, load_project
from gen_worker.log import Log

POLL_S = 0.5
_SKIPPED = {"__pycache__", "node_modules", "outputs", "dist", "build"}


async def watch(root: Path, app: DevApp, log: Log) -> None:
    """Reload whenever a source file of the project changes, until cancelled. Broken code is reported; the last good one goes on."""
    seen = await asyncio.to_thread(snapshot, root)
    while True:
        await asyncio.sleep(POLL_S)
        now = await asyncio.to_thread(snapshot, root)
        if now == seen:
            continue
        changed = sorted({str(path.relative_to(root)) for path, _ in seen.items() ^ now.items()})
        seen = now
        try:
            served = await asyncio.to_thread(reload_project, root)
        except ValueError as exc:
            log.error("reload.failed", changed=changed[0], error=str(exc))
            continue
        app.adopt(served.functions, served.models_by_function)
        log.info("reload.done", changed=changed[0], functions=sorted(spec.name for spec in served.functions))


def snapshot(root: Path) -> dict[Path, int]:
    """Modification times (ns) of the project's Python files and cozy.toml."""
    found: dict[Path, int] = {}
    folders = [root]
    while folders:
        for entry in folders.pop().iterdir():
            if entry.name.startswith(".") or entry.name in _SKIPPED:
                continue
            if entry.is_dir() and not (entry / "pyvenv.cfg").exists():
                folders.append(entry)
            elif entry.suffix == ".py" or entry.name == "cozy.toml":
                try:
                    found[entry] = entry.stat().st_mtime_ns
                except FileNotFoundError:  # an editor is replacing it
                    continue
    return found


def reload_project(root: Path) -> Served:
    """Discover again, with the project's own modules forgotten; on failure the old modules come back."""
    old = {name: module for name, module in sys.modules.items() if _is_under(getattr(module, "__file__", None), root)}
    for name in old:
        del sys.modules[name]
    importlib.invalidate_caches()
    try:
        return load_project(root)
    except ValueError:
        sys.modules.update(old)
        raise


def _is_under(file: object, root: Path) -> bool:
    if not isinstance(file, str):
        return False
    path = Path(file).resolve()
    return path.is_relative_to(root) and "site-packages" not in path.parts
