"""Find the functions to serve, open the port, serve until told to stop."""

import asyncio
import os
import socket
import sys
import tempfile
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import msgspec
import uvicorn

from gen_worker.dev.app import DevApp, DevConfig
from gen_worker.dev.project import Served, load_baked, load_project
from gen_worker.dev.reload import Snapshot, snapshot, watch
from gen_worker.dev.run_lines import show_what_functions_say
from gen_worker.execution.collector import settle_collector
from gen_worker.http.connection import Connection
from gen_worker.http.crowd import ConnectionLimits, Crowd
from gen_worker.http.hosts import HostPolicy, is_loopback
from gen_worker.leaving import GRACE_S, leave, leave_forks_alone, stop_signals
from gen_worker.log import Log
from gen_worker.names import did_you_mean
from gen_worker.project.cozy_toml import find_cozy_toml
from gen_worker.residency.devices import check_devices
from gen_worker.residency.hardware import GpuWatch
from gen_worker.residency.provide import build_sources
from gen_worker.settings import DeviceSettings, ModelSettings, RunLimits, split_list
from gen_worker.sources.source import parse_overrides

DEFAULT_LISTEN = "127.0.0.1:8081"
BAKED_MANIFEST = Path("/app/.cozy/manifest.json")


class ServeError(ValueError):
    """The runner cannot start."""


class ServeOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How to serve. `manifest` None: look for a project first, then for the baked manifest of an image."""

    listen: str = DEFAULT_LISTEN
    root: Path = Path()
    manifest: Path | None = None
    outputs: Path = Path("outputs")
    models: tuple[str, ...] = ()
    allow_hosts: tuple[str, ...] = ()
    reload: bool = False
    talks: bool = False


def find_functions(options: ServeOptions) -> Served:
    """Functions as the options say; `ValueError` with what is missing."""
    if options.manifest is not None:
        return load_baked(options.manifest, options.root)
    if find_cozy_toml(options.root) is not None:
        return load_project(options.root)
    if BAKED_MANIFEST.is_file():
        return load_baked(BAKED_MANIFEST, options.root)
    raise ServeError(
        f"no cozy.toml in {options.root.resolve()} and no manifest at {BAKED_MANIFEST}; start a project with: cozyctl init my-worker"
    )


def functions_or_none_yet(options: ServeOptions, log: Log) -> Served:
    """The same, but broken code of a project is said and waited for: the watch takes it up once it is mended."""
    try:
        return find_functions(options)
    except ValueError as exc:
        if find_cozy_toml(options.root) is None:
            raise
        log.note(f"error: {exc}\nwaiting for a change", "dev.waiting", error=str(exc))
        return Served(options.root.resolve().name, (), {}, options.root.resolve())


def model_overrides(options: ServeOptions, named: str, served: Served) -> dict[str, Path]:
    """Local folders for model keys: from the environment (relative to the project), then from the options (to the current folder)."""
    paths = parse_overrides(split_list(named), options.root)
    paths |= parse_overrides(list(options.models), Path.cwd())
    keys = {key for table in served.models_by_function.values() for key in table}
    for key in paths:
        if key not in keys and served.functions:
            raise ServeError(
                f"model override for {key!r}, which nobody uses.{did_you_mean(key, keys)} Declared: {', '.join(sorted(keys)) or 'none'}"
            )
    return paths


def dev_config(options: ServeOptions, env: Mapping[str, str], run_dir: Path, served: Served) -> DevConfig:
    """The configuration of a `DevApp` for these functions."""
    settings, devices = ModelSettings.from_env(env), DeviceSettings.from_env(env)
    check_devices(devices, GpuWatch(devices).read().count)
    return DevConfig(
        functions=served.functions,
        models_by_function=served.models_by_function,
        sources=build_sources(
            settings, model_overrides(options, settings.cozy_model_overrides, served), log=Log(as_json=env.get("LOG_FORMAT") == "json")
        ),
        model_settings=settings,
        outputs=writable(options.outputs),
        run_dir=Path(env.get("WORKER_RUN_DIR") or run_dir),
        limits=RunLimits.from_env(env),
        devices=devices,
        endpoint_name=served.endpoint_name,
        talks=options.talks,
        hosts=HostPolicy.listening_on(options.listen.rpartition(":")[0], options.allow_hosts),
    )


def writable(folder: Path) -> Path:
    """The folder, created if need be; `ServeError` when nothing can be written there."""
    folder = folder.expanduser().resolve()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".probe-"):
            pass
    except OSError as exc:
        raise ServeError(f"outputs folder {folder} cannot be written: {exc.strerror}; choose another with --outputs FOLDER") from None
    return folder


def listening_socket(listen: str) -> socket.socket:
    """A bound socket for `host:port` (port 0: any free one); `ServeError` says why it cannot be had."""
    host, colon, port = listen.rpartition(":")
    if not colon or not host or not port.isdigit() or int(port) > 65535:
        raise ServeError(f"--listen {listen!r}: expected HOST:PORT, such as {DEFAULT_LISTEN}")
    host = host.strip("[]")
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)[0]
        sock = socket.socket(family, kind)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(2048)
    except OSError as exc:
        used = (
            f"; port {port} is already used: stop the other server, or take a free port with --listen {host}:0" if exc.errno == 98 else ""
        )
        raise ServeError(f"cannot listen on {listen}: {exc.strerror or exc}{used}") from None
    return sock


def serve(options: ServeOptions, env: Mapping[str, str] = os.environ) -> int:
    """Serve until SIGINT, SIGTERM or SIGHUP; exit status 0, or 1 when the runner cannot start, with the reason on stderr.

    This is a whole program: once it returns, the process ends whatever the author's code has left running (`leaving`).
    """
    as_json = env.get("LOG_FORMAT") == "json"
    log = Log(sys.stderr, as_json=as_json)
    if options.talks:
        show_what_functions_say(log, as_json=as_json)
    if options.reload:
        # Cached bytecode is trusted by whole seconds and size: an edit right after a start would be missed.
        sys.dont_write_bytecode = True
    with tempfile.TemporaryDirectory(prefix="gen-worker-") as run_dir:
        try:
            sock = listening_socket(options.listen)
            seen = snapshot(options.root.resolve()) if options.reload else {}
            served = find_functions(options) if not options.reload else functions_or_none_yet(options, log)
            config = dev_config(options, env, Path(run_dir), served)
        except ValueError as exc:
            log.note(f"error: {exc}", "dev.failed", error=str(exc))
            return leave(1, log)
        _run(_serve(config, options, served, seen, sock, log))
    return leave(0, log)


def _run(main: Coroutine[Any, Any, None]) -> None:
    try:
        from uvloop import new_event_loop
    except ImportError:  # no wheel for this platform: asyncio's own loop does the same, slower
        new_event_loop = asyncio.new_event_loop
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(main)


class _Server(uvicorn.Server):
    """uvicorn, except that a signal ends the program with status 0 once it has shut down, instead of killing it afterwards, and that any
    second signal ends it without waiting for requests."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        leave_forks_alone()
        for number in stop_signals():
            loop.add_signal_handler(number, self._stop)
        yield

    def _stop(self) -> None:
        self.force_exit = self.should_exit
        self.should_exit = True


async def _serve(dev: DevConfig, options: ServeOptions, served: Served, seen: Snapshot, sock: socket.socket, log: Log) -> None:
    app = DevApp(dev, log)
    host, port = sock.getsockname()[:2]
    shown = f"http://{'[' + host + ']' if ':' in host else host}:{port}"
    crowd = Crowd(ConnectionLimits.for_this_process())

    def connection(*, config: uvicorn.Config, server_state: Any, **_: Any) -> Connection:
        return Connection(app.asgi, crowd, server_state)

    config = uvicorn.Config(
        app.asgi,
        http=cast("type[asyncio.Protocol]", connection),
        ws="none",
        lifespan="off",
        log_level="warning",
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=3,
    )
    server = _Server(config)
    settle_collector()
    names = sorted(spec.name for spec in served.functions)
    listening = f"listening on {shown} ({', '.join(names) or 'no functions yet'}); try it at {shown}/docs"
    log.note(listening, "dev.listening", url=shown, docs=f"{shown}/docs", functions=names)
    if not is_loopback(host):
        warning = "anyone who reaches this address can run these functions; there is no authentication"
        log.note(f"warning: {warning}", "dev.open", warning=warning)
    async with asyncio.TaskGroup() as tasks:
        watcher = None
        if options.reload and served.watched is not None:
            watcher = tasks.create_task(watch(served.watched, seen, app, log), name="reload")
        try:
            await server.serve(sockets=[sock])
        finally:
            await app.close()
            if watcher is not None:
                watcher.cancel()
            leave(0, log, 0.0 if server.force_exit else GRACE_S)  # before the loop waits for what the author left on it
