"""ROOT of the worker on the wire: builds its parts from settings and functions, joins them, runs them and shuts them down."""

import asyncio
import contextlib
import secrets
import time
from collections.abc import Callable
from pathlib import Path

from gen_worker.authoring.context import OutputStore
from gen_worker.content.listing import Listing
from gen_worker.errors import RetryableError
from gen_worker.execution.admission import Admission
from gen_worker.execution.build import build_execution
from gen_worker.execution.stuck import StuckAfter
from gen_worker.files.file_api import FileApi
from gen_worker.files.hub_files import NO_FILE_API, HubOutputs, NoFiles
from gen_worker.files.input_cache import InputCache
from gen_worker.log import Log
from gen_worker.residency.hardware import read_hardware
from gen_worker.runtime.config import WorkerConfig
from gen_worker.runtime.connection import FLUSH_TIMEOUT_S, Connection
from gen_worker.runtime.connection_parts import Apply, ConnectionPolicy, Register
from gen_worker.runtime.dispatch import Dispatch
from gen_worker.runtime.duties import Duties
from gen_worker.runtime.identity import Identity
from gen_worker.runtime.model_commands import ModelCommands
from gen_worker.runtime.realtime import RealtimeSessions
from gen_worker.runtime.registration import Registrar
from gen_worker.runtime.releases import Releases
from gen_worker.runtime.seeds import Backoff, Seeds
from gen_worker.runtime.startup import Startup
from gen_worker.runtime.wire_runs import WireRuns
from gen_worker.scratch import scratch_folder
from gen_worker.transport.grpc_client import GrpcDialer, Tls
from gen_worker.wire.messages import MAX_RUNS, Registration
from gen_worker.wire.outbox import Outbox
from gen_worker.wire.worker_session import WorkerEffect

CANCEL_GRACE_S = 5.0  # after the drain, cancelled runs have this long to end with a result


class RegisterTimeoutError(RuntimeError):
    """No scheduler accepted the worker within WORKER_REGISTER_TIMEOUT_S."""

    def __init__(self) -> None:
        super().__init__("startup_timeout_unregistered")


class WireWorker:
    """One worker. `run` lasts until `stop`; build and use it on one event loop."""

    def __init__(self, config: WorkerConfig, startup: Startup, log: Log) -> None:
        self._config = config
        self._startup = startup
        self._log = log
        self._stopping = asyncio.Event()
        self._hurry = asyncio.Event()
        self._registered = asyncio.Event()
        self._import_ahead: Callable[[], None] = lambda: None
        self._identity = Identity(config.settings.worker_jwt)
        self._instance_id = secrets.token_hex(8)

    def stop(self) -> None:
        """Take no more runs, drain, and end. A second call ends now."""
        if self._stopping.is_set():
            self._hurry.set()
        self._stopping.set()

    @property
    def hurried(self) -> bool:
        """Whether `stop` was called twice."""
        return self._hurry.is_set()

    async def run(self) -> None:
        """Serve until stopped. Raises `RegisterTimeoutError`, `IncompatibleSchedulerError` or `UnreachableError`."""
        settings = self._config.settings
        with contextlib.ExitStack() as resources:
            run_dir = Path(settings.worker_run_dir or resources.enter_context(scratch_folder()))
            try:
                async with asyncio.TaskGroup() as tasks:
                    await self._run(tasks, run_dir)
            except BaseExceptionGroup as group:
                # A part failed that must not fail: the first cause ends the worker.
                raise group.exceptions[0] from group
            finally:
                self._startup.disconnect()

    async def _run(self, tasks: asyncio.TaskGroup, run_dir: Path) -> None:
        config, settings, limits, log = self._config, self._config.settings, self._config.execution.limits, self._log

        # Parts that need each other: these callbacks are called once all parts exist.
        def refresh() -> None:
            connection.refresh()

        def renew(model_id: str, old: Listing) -> Listing:
            return releases.renew(model_id, old)

        def register(is_heartbeat: bool) -> Registration:
            return registrar.registration(is_heartbeat)

        def apply(effect: WorkerEffect) -> None:
            dispatch.apply(effect)

        execution = build_execution(
            config.execution,
            run_dir,
            log,
            models_by_function=config.models_by_function,
            input_cache=InputCache(Path(settings.worker_cache_dir or run_dir / ".input-cache")),
            stuck_after=StuckAfter(
                settings.worker_warn_model_resolve_s, settings.worker_warn_model_load_s, settings.worker_warn_inference_s
            ),
            on_models_changed=refresh,
            renew=renew,
        )
        executor, models = execution.executor, execution.models
        duties = Duties(tasks, log)
        admission = Admission(limits.worker_max_concurrency or MAX_RUNS)
        functions = {spec.name: spec for spec in config.functions if spec.kind == "function"}
        sockets = {spec.name: spec for spec in config.functions if spec.kind == "websocket"}
        outbox = Outbox(settings.worker_max_message_bytes)
        registrar = Registrar(
            config.functions,
            read_hardware(config.execution.devices),
            execution.gpus,
            models,
            instance_id=self._instance_id,
            max_concurrency=limits.worker_max_concurrency,
            runpod_pod_id=settings.runpod_pod_id,
            is_busy=lambda: admission.active > 0 or releases.busy > 0 or commands.busy > 0,
            active_runs=lambda: runs.attempts | outbox.unconfirmed_attempts,
        )
        connection = self._connect(outbox, register, apply)
        runs = WireRuns(
            functions,
            executor,
            admission,
            connection,
            self._files_of,
            log,
            endpoint=config.endpoint_name,
            are_runs_limited=limits.worker_max_concurrency > 0,
            max_message_bytes=settings.worker_max_message_bytes,
            baseline=lambda: releases.resolved,
            listings=lambda: releases.listings,
        )
        realtime = RealtimeSessions(
            sockets,
            executor,
            admission,
            connection,
            self._files_of,
            log,
            max_frame_bytes=limits.worker_max_ws_frame_bytes,
            listings=lambda: releases.listings,
        )
        releases = Releases(functions, models, connection, duties, connection.refresh, log)
        commands = ModelCommands(functions, models, connection, duties, connection.refresh)
        releases.take_inventory(execution.sources.cas)
        dispatch = Dispatch(
            runs, realtime, releases, commands, self._identity, lambda: connection.has_credit, lambda: connection.has_window, duties, log
        )
        self._realtime = realtime
        self._startup.connect(connection.say_event)
        self._import_ahead = lambda: execution.imports.begin(config.functions)
        # If one of these fails, the group cancels this coroutine and ends with the failure.
        holding = tasks.create_task(connection.hold(), name="connection")
        watchdog = tasks.create_task(self._watch_registration(), name="register-watchdog")
        try:
            await self._stopping.wait()
            await self._drain(admission, runs, realtime, connection)
        finally:
            await connection.close()
            watchdog.cancel()
            holding.cancel()
            runs.cancel_all(RetryableError("the worker is shutting down"))
            realtime.end_all("worker_draining")
            duties.close()
            execution.close()

    def _connect(self, outbox: Outbox, register: Register, apply: Apply) -> Connection:
        settings = self._config.settings
        tls = Tls(
            settings.use_tls,
            settings.scheduler_tls_ca_file,
            settings.scheduler_tls_server_name,
            settings.scheduler_tls_cert_file,
            settings.scheduler_tls_key_file,
        )
        dialer = self._config.dialer or GrpcDialer(tls, max_message_bytes=settings.worker_max_message_bytes)
        backoff = Backoff(settings.reconnect_delay, settings.reconnect_max_delay, settings.reconnect_jitter_seconds)
        policy = ConnectionPolicy(backoff, settings.max_reconnect_attempts, settings.worker_heartbeat_s)
        return Connection(dialer, Seeds(self._config.seeds), self._identity, outbox, policy, register, apply, self, self._log)

    async def _watch_registration(self) -> None:
        timeout_s = self._config.settings.worker_register_timeout_s
        if timeout_s <= 0:
            return
        try:
            async with asyncio.timeout(timeout_s):
                await self._registered.wait()
        except TimeoutError:
            self._startup.unregistered(timeout_s)
            raise RegisterTimeoutError from None

    async def _drain(self, admission: Admission, runs: WireRuns, realtime: RealtimeSessions, connection: Connection) -> None:
        """Let runs end, cancel the rest, deliver every result."""
        drain_s = self._config.settings.worker_drain_timeout_seconds
        until_s = time.monotonic() + drain_s
        self._log.info("worker.draining", active=admission.active, timeout_s=drain_s)
        admission.drain()
        connection.hurry()
        if not self._registered.is_set() and not runs.active:
            return

        async def orderly() -> None:
            async def idle() -> None:
                await runs.wait_idle()
                await realtime.wait_idle()

            if drain_s > 0:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(drain_s):
                        await idle()
            runs.cancel_all(RetryableError("the worker is shutting down"))
            realtime.end_all("worker_draining")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CANCEL_GRACE_S):
                    await idle()
            # When the leader died, the next one takes some seconds: the rest of the drain time is there for that, too.
            if not await connection.flush(max(FLUSH_TIMEOUT_S, until_s - time.monotonic())):
                self._log.error("worker.results_undelivered", results=sorted(connection.outbox.unconfirmed_results))

        draining = asyncio.create_task(orderly(), name="drain")
        hurry = asyncio.create_task(self._hurry.wait(), name="hurry")
        try:
            await asyncio.wait([draining, hurry], return_when=asyncio.FIRST_COMPLETED)
            if draining.done():
                draining.result()
        finally:
            draining.cancel()
            hurry.cancel()

    def _files_of(self, base_url: str, token: str, owner: str) -> tuple[OutputStore, FileApi | None]:
        """The run's own file API overrides the environment's. Inputs only ever use the run's own."""
        settings, limits = self._config.settings, self._config.execution.limits
        base, credential = base_url or settings.files_base, token or settings.files_token
        if not base or not credential:
            return NoFiles(NO_FILE_API), None
        try:
            api = FileApi(base, credential, owner)
        except ValueError as exc:
            return NoFiles(str(exc)), None
        return HubOutputs(api, owner or None, limits.upload_bytes), api if base_url and token else None

    # Reports of the connection.

    def connecting(self, address: str) -> None:
        if not self._registered.is_set():
            self._startup.phase("scheduler_connecting", "starting", address=address)

    def connect_failed(self, address: str, detail: str) -> None:
        if not self._registered.is_set():
            self._startup.phase("scheduler_connect_failed", "error", address=address, detail=detail)
        else:
            self._log.warning("scheduler.connect_failed", address=address, detail=detail)

    def registered(self, address: str) -> None:
        if not self._registered.is_set():
            self._registered.set()
            self._startup.phase("registered", address=address)
            self._startup.phase("ready", functions=sorted(spec.name for spec in self._config.functions))
            self._import_ahead()
        else:
            self._log.info("scheduler.reconnected", address=address)

    def incompatible(self, address: str, detail: str) -> None:
        self._startup.phase("scheduler_protocol_incompatible", "error", address=address, detail=detail)

    def lost(self, address: str, detail: str) -> None:
        self._log.warning("scheduler.lost", address=address, detail=detail)
        self._realtime.end_all("connection_lost")
