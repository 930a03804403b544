"""Workers as child processes. They notice when the platform dies.

If other nodes can take over, the workers then drain and bring their results to the next leader. Otherwise nobody would accept these, so the
kernel kills the workers at once, and the next start finds the devices free. Their child processes are killed, too (`leftovers`).
"""

import asyncio
import os
import signal
from collections.abc import Mapping
from pathlib import Path

from gen_orchestrator.child_environment import ChildEnvironment
from gen_orchestrator.fleet.base import OnExit, WorkerSpec
from gen_orchestrator.fleet.children import Children
from gen_orchestrator.fleet.leftovers import MARK_NAME
from gen_orchestrator.fleet.log_files import MAX_BYTES
from gen_worker.project.variables import variable_problem
from gen_worker.scratch import sweep

# Runs before the worker. The end of its stdin means that its parent ended. (The kernel's signal for that comes once for
# each thread of a killed parent, and a second SIGTERM means: now.) A parent that died before the kernel was asked is
# recognised by its id.
_START = """
import ctypes, os, runpy, signal, sys, threading
def watch(parent):
    while os.read(parent, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
if os.environ["GEN_ORCHESTRATOR_OUTLIVED"] == "1":
    threading.Thread(target=watch, args=(os.dup(0),), daemon=True, name="parent-watch").start()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
else:
    ctypes.CDLL(None).prctl(1, 9)
    if os.getppid() != int(os.environ["GEN_ORCHESTRATOR_PID"]):
        sys.exit(0)
runpy.run_module("gen_worker.entrypoint", run_name="__main__", alter_sys=True)
"""
_INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "USER", "LD_LIBRARY_PATH", "VIRTUAL_ENV")
OURS = frozenset({"COZY_API_KEY", "COZY_MANIFEST_PATH", "COZY_FUNCTION_MODULES"})  # these belong to whoever started us, not to the project
_PREFIXES = (
    *("WORKER_", "TENSORHUB_", "COZY_", "HF_", "CUDA_", "NVIDIA_", "TORCH_", "TRANSFORMERS_", "DIFFUSERS_", "TOKENIZERS_"),
    *("OMP_", "MKL_", "OPENBLAS_", "PYTHON", "SSL_", "REQUESTS_", "XDG_"),
)


class Processes(Children):
    """A fleet on this machine. `defaults`: variables for workers, unless `environment` has them."""

    def __init__(
        self, logs: Path, environment: ChildEnvironment, defaults: Mapping[str, str] | None = None, max_log_bytes: int = MAX_BYTES
    ) -> None:
        super().__init__(logs, max_log_bytes)
        self._environment = environment
        self._defaults = dict(defaults or {})
        self._scratch: dict[str, tuple[Path | None, ...]] = {}  # by worker: where its temporary folders are

    async def start(self, spec: WorkerSpec, on_exit: OnExit) -> None:
        env = worker_environment(spec, {**self._defaults, **self._environment})
        with self._log_file(spec.worker_id).open("ab") as log:
            child = await asyncio.create_subprocess_exec(
                spec.python,
                "-c",
                _START,
                cwd=spec.folder,
                env=env,
                stdin=asyncio.subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C on the terminal is for us: we drain the workers
            )
        self._scratch[spec.worker_id] = _scratch_of(env)
        await self._keep(spec.worker_id, child, on_exit, stays=is_outlived(spec))

    async def stop(self, worker_id: str, grace_s: float) -> None:
        child, waiting = self._children.get(worker_id), self._waiting.get(worker_id)
        if child is None or waiting is None:
            return
        if grace_s > 0:
            self._signal(child, signal.SIGTERM)
        done, _ = await asyncio.wait([waiting], timeout=grace_s)
        if not done:
            self._signal(child, signal.SIGKILL)
            await asyncio.wait([waiting])

    async def _clear_up(self, worker_id: str) -> None:
        for folder in self._scratch.pop(worker_id, ()):
            await asyncio.to_thread(sweep, folder)  # a worker that ended in order has left nothing

    def pid_of(self, worker_id: str) -> int | None:
        """The process id of a running worker."""
        child = self._children.get(worker_id)
        return child.pid if child is not None else None

    @staticmethod
    def _signal(child: asyncio.subprocess.Process, number: signal.Signals) -> None:
        try:
            if number is signal.SIGKILL:
                os.killpg(child.pid, number)  # including everything that the author's code has started
            else:
                child.send_signal(number)
        except ProcessLookupError:
            return


def _scratch_of(env: Mapping[str, str]) -> tuple[Path | None, ...]:
    """Where a worker with this environment has its temporary folders; None is the default place."""
    tmp, run_dir = env.get("TMPDIR"), env.get("WORKER_RUN_DIR")
    return (Path(tmp) if tmp else None, *((Path(run_dir),) if run_dir else ()))


def is_outlived(spec: WorkerSpec) -> bool:
    """Whether this worker continues for a while without us, because other nodes can take over."""
    return "," in spec.scheduler_addr


def worker_environment(spec: WorkerSpec, env: Mapping[str, str]) -> dict[str, str]:
    """The environment of a worker's process: what it needs, and nothing of the control plane's own."""
    kept = {name: value for name, value in env.items() if name not in OURS and (name in _INHERITED or name.startswith(_PREFIXES))}
    # The worker sets these itself, too. Set from the start, they also reach libraries that read the environment only
    # once (MALLOC_ARENA_MAX).
    kept = {name: value for name, value in spec.variables.items() if not variable_problem(name, value)} | kept
    kept |= spec.env | worker_variables(spec)
    kept |= {
        "GEN_ORCHESTRATOR_PID": str(os.getpid()),
        "GEN_ORCHESTRATOR_OUTLIVED": str(int(is_outlived(spec))),
        "GEN_WORKER_MANIFEST_PATH": spec.manifest,
        "GEN_WORKER_ENDPOINT_ROOT": spec.folder,
    }
    if spec.gpu:
        kept["CUDA_VISIBLE_DEVICES"] = spec.gpu
    return kept


def worker_variables(spec: WorkerSpec) -> dict[str, str]:
    """The variables of every worker, wherever it runs."""
    return {
        MARK_NAME: spec.worker_id,
        "WORKER_DRAIN_TIMEOUT_SECONDS": str(spec.drain_s),
        "LOG_FORMAT": "json",
        "PYTHONUNBUFFERED": "1",
        "SCHEDULER_PUBLIC_ADDR": spec.scheduler_addr.partition(",")[0],
        "SCHEDULER_ADDRS": spec.scheduler_addr.partition(",")[2],
        "USE_TLS": "false",
        "WORKER_ID": spec.worker_id,
        "WORKER_JWT": spec.token,
        "RECONNECT_DELAY": "1",
    }
