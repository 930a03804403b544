"""A worker as a program: signals, event loop, exit status."""

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from gen_worker.authoring.model_interface import ModelDownloader
from gen_worker.authoring.signature import FunctionSpec
from gen_worker.contract.manifest import Manifest
from gen_worker.execution.collector import settle_collector
from gen_worker.leaving import leave_forks_alone, stop_signals
from gen_worker.log import Log
from gen_worker.net.jwks import JwksSettings, JwksVerifier
from gen_worker.project.baked import load_functions
from gen_worker.project.discovery import import_modules, read_specs
from gen_worker.refs import ModelSpec
from gen_worker.residency.devices import check_devices
from gen_worker.residency.hardware import GpuWatch
from gen_worker.residency.provide import Extras, build_sources
from gen_worker.runtime.startup import Startup
from gen_worker.runtime.worker import WireWorker, WorkerConfig
from gen_worker.settings import DeviceSettings, ModelSettings, RunLimits, SettingError, WorkerSettings, check_settings, split_list
from gen_worker.sources.source import parse_overrides


def worker_config(
    env: Mapping[str, str],
    settings: WorkerSettings,
    functions: tuple[FunctionSpec, ...],
    models: Mapping[str, Mapping[str, ModelSpec]],
    extras: Extras = Extras(),  # noqa: B008 - frozen
    log: Log | None = None,
) -> WorkerConfig:
    """What a worker is built from; `ValueError` names what is missing or wrong."""
    if not settings.scheduler_public_addr.strip():
        raise SettingError("SCHEDULER_PUBLIC_ADDR is not set; expected the scheduler's host:port")
    if not settings.worker_jwt.strip():
        raise SettingError("WORKER_JWT is not set; expected the token that the scheduler gave this worker")
    model_settings, devices = ModelSettings.from_env(env), DeviceSettings.from_env(env)
    check_devices(devices, GpuWatch(devices).read().count)
    return WorkerConfig(
        settings=settings,
        limits=RunLimits.from_env(env),
        devices=devices,
        functions=functions,
        models_by_function=models,
        sources=build_sources(
            model_settings, parse_overrides(split_list(model_settings.cozy_model_overrides), Path.cwd()), extras, log=log
        ),
        extras=extras,
        model_settings=model_settings,
    )


def check_writable(folder: str) -> None:
    """Fail early where a cache folder cannot be written; `SettingError` names it."""
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        probe = Path(folder) / f".probe-{os.getpid()}"
        with probe.open("wb") as file:
            file.write(b"probe")
            os.fsync(file.fileno())
        probe.unlink()
    except OSError as exc:
        raise SettingError(
            f"the folder {folder!r} cannot be written: {exc.strerror}; choose another with TENSORHUB_CACHE_DIR, "
            "WORKER_LOCAL_MODEL_CACHE_DIR or WORKER_CACHE_DIR"
        ) from None


def verify_token(settings: WorkerSettings) -> None:
    """Check WORKER_JWT against SCHEDULER_JWKS_URL, where that is set; `AuthError` says what is wrong."""
    if settings.scheduler_jwks_url:
        jwks = JwksSettings(
            settings.scheduler_jwks_url,
            settings.scheduler_jwt_issuer,
            settings.scheduler_jwt_audience,
            settings.scheduler_jwks_ttl_seconds,
        )
        JwksVerifier(jwks, "WORKER_JWT").verify(settings.worker_jwt.strip())


def run_until_stopped(
    config: WorkerConfig,
    startup: Startup,
    log: Log,
    on_built: Callable[[WireWorker], None] = lambda worker: None,
    on_ended: Callable[[WireWorker], None] = lambda worker: None,
) -> None:
    """Run a worker in this thread until a signal or `WireWorker.stop` ends it. `on_ended` is called when nothing of ours is left to do,
    before the loop waits for what others have left on it."""

    async def main() -> None:
        worker = WireWorker(config, startup, log)
        on_built(worker)
        loop = asyncio.get_running_loop()
        if threading.current_thread() is threading.main_thread():
            leave_forks_alone()
            for number in stop_signals():
                loop.add_signal_handler(number, worker.stop)
        settle_collector()
        await worker.run()
        on_ended(worker)

    try:
        from uvloop import new_event_loop
    except ImportError:  # no wheel for this platform: asyncio's own loop does the same, slower
        new_event_loop = asyncio.new_event_loop
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(main())


class Worker:
    """A worker under the control of the program that builds it.

    `run` blocks until `stop` is called from another thread, or a signal arrives. `manifest` is a baked manifest as a dict; without one the
    functions are those of `user_module_names`. Everything else comes from the environment.
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
        manifest: Mapping[str, Any] | None = None,
        model_manager: Any = None,
        downloader: ModelDownloader | None = None,
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
            functions, models = load_functions(msgspec.convert(manifest, Manifest))
        else:
            functions, models = read_specs(import_modules(user_module_names)), {}
        self._log = Log(as_json=env.get("LOG_FORMAT") == "json")
        config = worker_config(env, settings, functions, models, Extras(model_manager, downloader), self._log)
        self._config = msgspec.structs.replace(config, worker_id=worker_id or "")
        self._lock = threading.Lock()
        self._stops = 0  # that came while nothing was running
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
        """From any thread, at any time: take no more runs, drain, end. Called again: end now. Before `run` it holds for the next `run`,
        which then ends as soon as it has begun."""
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
