"""From an environment to a running worker, top to bottom. Each step calls into one package and returns a value:

    environment --settings--> WorkerSettings
    folder      --project---> functions and their models     (the baked manifest, else the project itself)
    both        --config----> WorkerConfig                    (everything the worker is built from; nothing is open yet)
    WorkerConfig --preflight                                  (folders can be written, the token is good)
    WorkerConfig --program--> signals and event loop --worker--> its parts, joined and run

A phase is logged before each step, so that a failed start shows how far it got.
"""

import sys
from collections.abc import Mapping
from pathlib import Path

from gen_worker.contract.manifest import BAKED_MANIFEST
from gen_worker.errors import WorkerError
from gen_worker.leaving import GRACE_S, leave
from gen_worker.log import Log
from gen_worker.log_pipe import guard_standard_streams
from gen_worker.project.served import Served, check_version, load_for_worker
from gen_worker.project.validation import VersionError
from gen_worker.runtime.config import worker_config
from gen_worker.runtime.preflight import check_cache_folders, verify_token
from gen_worker.runtime.program import run_until_stopped
from gen_worker.runtime.startup import Startup
from gen_worker.runtime.worker import WireWorker
from gen_worker.settings import WorkerSettings


def boot(env: Mapping[str, str]) -> int:
    """Run until stopped. Returns the exit status: 0, 1 when it could not start or had to end, 2 for a wrong version of gen-worker."""
    as_json = env.get("LOG_FORMAT", "json") == "json"
    log = Log(as_json=as_json)
    guard_standard_streams(log.lost_line)
    startup = Startup(log, env.get("WORKER_ID", ""), env.get("SCHEDULER_PUBLIC_ADDR", ""))
    startup.phase("boot")
    phase = "boot"
    try:
        settings = WorkerSettings.from_env(env)
        root = Path(env.get("GEN_WORKER_ENDPOINT_ROOT") or Path.cwd())
        check_version(root, env)
        phase = "manifest"
        path, served = _functions(env, root)
        startup.phase("manifest_loaded", path=str(path), functions=sorted(spec.name for spec in served.functions))
        phase = "configuration"
        config = worker_config(env, settings, served.functions, served.models_by_function, endpoint_name=served.endpoint_name)
        phase = "cache_preflight"
        check_cache_folders(config.cache_folders, startup)
        phase = "verify_token"
        verify_token(settings)
        phase = "run"
        run_until_stopped(config, startup, log, on_ended=lambda worker: _leave(worker, log))
    except VersionError as exc:
        return _refuse(startup, phase, exc, 2, as_json=as_json)
    except (ValueError, WorkerError, RuntimeError) as exc:
        return leave(_refuse(startup, phase, exc, 1, as_json=as_json), log)
    return leave(0, log)


def _functions(env: Mapping[str, str], root: Path) -> tuple[Path, Served]:
    named = env.get("GEN_WORKER_MANIFEST_PATH")
    return load_for_worker(root, Path(named or BAKED_MANIFEST), env, must_be_baked=bool(named))


def _refuse(startup: Startup, phase: str, exc: Exception, status: int, *, as_json: bool) -> int:
    startup.fatal(phase, exc, status)
    if not as_json:  # with JSON logs each line must be JSON, and the line above already says it
        print(f"error: {exc}", file=sys.stderr)
    return status


def _leave(worker: WireWorker, log: Log) -> None:
    leave(0, log, 0.0 if worker.hurried else GRACE_S)
