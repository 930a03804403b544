"""A worker inside a program that builds and controls it."""

import asyncio
import contextlib
import os
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from gen_worker.authoring.model_interface import ModelDownloader
from gen_worker.contract.manifest import Manifest
from gen_worker.execution.build import Extras
from gen_worker.log import Log
from gen_worker.log_pipe import guarded
from gen_worker.project.baked import load_functions
from gen_worker.project.discovery import import_modules, read_specs
from gen_worker.runtime.config import worker_config
from gen_worker.runtime.program import run_until_stopped
from gen_worker.runtime.startup import Startup
from gen_worker.runtime.worker import WireWorker
from gen_worker.settings import WorkerSettings, check_settings


class Worker:
    """A worker inside a program that builds and controls it.

    `run` blocks until `stop` is called from another thread, or a signal arrives. `manifest` is a baked manifest as a
    dict; without one, the functions are those of `user_module_names`. Everything else comes from the environment.
    """

    def __init__(
        self,
        scheduler_addr: str = "localhost:8080",
        scheduler_addrs: Sequence[str] | None = None,
        user_module_names: Sequence[str] = ("functions",),
        worker_id: str | None = None,
        worker_jwt: str = "",
        use_tls: bool = False,
        reconnect_delay: float = 5,
        max_reconnect_attempts: int = 0,
        model_manager: Any = None,
        downloader: ModelDownloader | None = None,
        manifest: Mapping[str, Any] | None = None,
    ) -> None:
        if not worker_jwt.strip():
            raise ValueError("worker_jwt is empty; expected the token that the scheduler gave this worker")
        env = dict(os.environ)
        settings = msgspec.structs.replace(
            WorkerSettings.from_env(env),
            scheduler_public_addr=scheduler_addr,
            scheduler_addrs=",".join(scheduler_addrs or ()),
            worker_jwt=worker_jwt,
            use_tls=use_tls or None,
            reconnect_delay=float(reconnect_delay),
            max_reconnect_attempts=max_reconnect_attempts,
        )
        check_settings(settings)
        if manifest is not None:
            functions, models = load_functions(msgspec.convert(manifest, Manifest), env)
        else:
            functions, models = read_specs(import_modules(user_module_names)), {}
        as_json = env.get("LOG_FORMAT") == "json"
        guard = guarded(sys.stderr, Log(as_json=as_json).lost_line)
        self._log = Log(guard if guard is not sys.stderr else None, as_json=as_json)
        self._config = worker_config(env, settings, functions, models, worker_id or "", Extras(model_manager, downloader))
        self._lock = threading.Lock()
        self._stops = 0  # calls of `stop` while nothing was running
        self._running: tuple[asyncio.AbstractEventLoop, WireWorker] | None = None

    def run(self) -> None:
        """Serve until stopped."""
        startup = Startup(self._log, self._config.worker_id, self._config.settings.scheduler_public_addr)
        try:
            run_until_stopped(self._config, startup, self._log, self._began)
        finally:
            with self._lock:
                self._running = None

    def stop(self) -> None:
        """Take no more runs, drain, end. Callable from any thread, at any time. A second call ends now. A call before
        `run` applies to the next `run`, which then ends as soon as it has begun.
        """
        with self._lock:
            if self._running is None:
                self._stops += 1
                return
            loop, worker = self._running
            with contextlib.suppress(RuntimeError):  # the loop is closed: the worker has ended
                loop.call_soon_threadsafe(worker.stop)

    def _began(self, worker: WireWorker) -> None:
        with self._lock:
            self._running = asyncio.get_running_loop(), worker
            stops, self._stops = self._stops, 0
        for _ in range(stops):
            worker.stop()
