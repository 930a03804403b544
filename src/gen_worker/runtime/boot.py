"""From an environment to a running worker: read it, find the functions, check what can be checked, then run."""

import sys
from collections.abc import Mapping
from pathlib import Path

from gen_worker.contract.manifest import Manifest
from gen_worker.errors import WorkerError
from gen_worker.leaving import GRACE_S, leave
from gen_worker.log import Log
from gen_worker.project.baked import load_functions
from gen_worker.project.cozy_toml import find_cozy_toml
from gen_worker.project.discovery import add_to_path, discover
from gen_worker.project.manifest import read_manifest
from gen_worker.project.validation import VersionError, version_problem
from gen_worker.runtime.program import check_writable, run_until_stopped, verify_token, worker_config
from gen_worker.runtime.startup import Startup
from gen_worker.runtime.worker import WireWorker
from gen_worker.settings import LOCAL_CACHE_DIR, ModelSettings, WorkerSettings

BAKED_MANIFEST = "/app/.cozy/manifest.json"


def boot(env: Mapping[str, str]) -> int:
    """Run until stopped; the exit status."""
    as_json = env.get("LOG_FORMAT", "json") == "json"
    log = Log(as_json=as_json)
    startup = Startup(log, env.get("WORKER_ID", ""), env.get("SCHEDULER_PUBLIC_ADDR", ""))
    startup.phase("boot")
    phase = "boot"
    try:
        settings = WorkerSettings.from_env(env)
        root = Path(env.get("GEN_WORKER_ENDPOINT_ROOT") or Path.cwd())
        if problem := version_problem(root):
            return _refuse(startup, phase, VersionError(problem), 2, as_json=as_json)
        phase = "manifest"
        path, manifest = find_manifest(env, root)
        functions, models = load_functions(manifest)
        startup.phase("manifest_loaded", path=str(path), functions=sorted(spec.name for spec in functions))
        phase = "configuration"
        config = worker_config(env, settings, functions, models, log=log)
        phase = "cache_preflight"
        for folder in cache_folders(settings, config.model_settings):
            startup.phase("cache_preflight_started", "starting", path=folder)
            try:
                check_writable(folder)
            except ValueError as exc:
                startup.phase("cache_preflight_failed", "error", path=folder, detail=str(exc))
                raise
            startup.phase("cache_preflight_ok", path=folder)
        phase = "verify_token"
        verify_token(settings)
        phase = "run"
        run_until_stopped(config, startup, log, on_ended=lambda worker: _leave(worker, log))
    except (ValueError, WorkerError, RuntimeError) as exc:
        return leave(_refuse(startup, phase, exc, 1, as_json=as_json), log)
    return leave(0, log)


def _refuse(startup: Startup, phase: str, exc: Exception, status: int, *, as_json: bool) -> int:
    startup.fatal(phase, exc, status)
    if not as_json:  # among JSON lines each line is JSON, and the one above says it
        print(f"error: {exc}", file=sys.stderr)
    return status


def _leave(worker: WireWorker, log: Log) -> None:
    leave(0, log, 0.0 if worker.hurried else GRACE_S)


def cache_folders(settings: WorkerSettings, models: ModelSettings) -> list[str]:
    """Folders that have to be writable: the model store, and those that the environment names."""
    copies = models.worker_local_model_cache_dir
    named = [str(models.cas_root), copies if copies != LOCAL_CACHE_DIR else "", settings.worker_cache_dir]
    return [folder for folder in named if folder]


def find_manifest(env: Mapping[str, str], root: Path) -> tuple[Path, Manifest]:
    """The baked manifest; where there is none, the manifest of the project in `root`. `ValueError` says what is missing."""
    add_to_path(root.resolve())
    path = Path(env.get("GEN_WORKER_MANIFEST_PATH") or BAKED_MANIFEST)
    project = find_cozy_toml(root)
    if path.exists() or project is None or env.get("GEN_WORKER_MANIFEST_PATH"):
        return path, read_manifest(path)
    return project, discover(root).manifest
