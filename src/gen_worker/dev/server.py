"""Finds the functions to serve, opens the port, serves until told to stop."""

import asyncio
import socket
import sys
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import msgspec
import uvicorn

from gen_worker import event_loop
from gen_worker.contract.manifest import BAKED_MANIFEST
from gen_worker.dev.app import DevApp, DevConfig
from gen_worker.dev.raw_output import divert
from gen_worker.dev.reload import ProjectFiles, watch
from gen_worker.dev.run_lines import show_what_functions_say
from gen_worker.execution.build import ExecutionSettings
from gen_worker.http.hosts import HostPolicy, is_loopback
from gen_worker.http.listening import listening_socket, url_of
from gen_worker.http.serving import quiet_config
from gen_worker.interpreter import settle_interpreter
from gen_worker.leaving import GRACE_S, leave, leave_forks_alone, stop_signals
from gen_worker.log import Log
from gen_worker.log_pipe import guard_standard_streams
from gen_worker.project.cozy_toml import find_cozy_toml
from gen_worker.project.served import Served, load_baked, load_project
from gen_worker.project.watching import polls_files
from gen_worker.scratch import scratch_folder
from gen_worker.shared_files import check_writable

DEFAULT_LISTEN = "127.0.0.1:8081"


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


def find_functions(options: ServeOptions, env: Mapping[str, str]) -> Served:
    """Functions according to the options; `ValueError` says what is missing."""
    if options.manifest is not None:
        return load_baked(options.manifest, options.root, env)
    if find_cozy_toml(options.root, env) is not None:
        return load_project(options.root, env)
    if BAKED_MANIFEST.is_file():
        return load_baked(BAKED_MANIFEST, options.root, env)
    raise ServeError(
        f"no cozy.toml in {options.root.resolve()} and no manifest at {BAKED_MANIFEST}; start a project with: cozyctl init my-worker"
    )


def functions_or_none_yet(options: ServeOptions, env: Mapping[str, str], log: Log) -> Served:
    """Like `find_functions`, but a project's broken code is reported and waited for: it is loaded once it is fixed."""
    try:
        return find_functions(options, env)
    except ValueError as exc:
        if find_cozy_toml(options.root, env) is None:
            raise
        log.note(f"error: {exc}\nwaiting for a change", "dev.waiting", error=str(exc))
        return Served(options.root.resolve().name, (), {}, options.root.resolve(), problem=str(exc))


def dev_config(options: ServeOptions, env: Mapping[str, str], run_dir: Path, served: Served) -> DevConfig:
    """The configuration of a `DevApp` for these functions."""
    keys = {key for table in served.models_by_function.values() for key in table}
    return DevConfig(
        functions=served.functions,
        models_by_function=served.models_by_function,
        execution=ExecutionSettings.from_env(env, options.root, options.models, keys if served.functions else None),
        outputs=writable(options.outputs),
        run_dir=Path(env.get("WORKER_RUN_DIR") or run_dir),
        endpoint_name=served.endpoint_name,
        talks=options.talks,
        hosts=HostPolicy.listening_on(options.listen.rpartition(":")[0], options.allow_hosts),
    )


def writable(folder: Path) -> Path:
    """The folder, which is created with the first saved file; `ServeError` when it is not writable."""
    folder = folder.expanduser().resolve()
    try:
        check_writable(folder)
    except OSError as exc:
        raise ServeError(f"outputs folder {folder} cannot be written: {exc.strerror}; choose another with --outputs FOLDER") from None
    return folder


def serve(options: ServeOptions, env: Mapping[str, str]) -> int:
    """Serve until SIGINT, SIGTERM or SIGHUP. Exit status 0; 1 when the runner cannot start, with the reason on stderr.

    This is a whole program: when it returns, the process ends, even if the author's code has left something running
    (`leaving`).
    """
    env = dict(env)  # a copy: the project's own variables will be set in this process, and its next version may change them
    as_json = env.get("LOG_FORMAT") == "json"
    guard_standard_streams(Log(as_json=as_json).lost_line)
    log = Log(divert() if options.talks and as_json else sys.stderr, as_json=as_json)
    if options.talks:
        show_what_functions_say(log, as_json=as_json)
    if options.reload:
        # Cached bytecode is checked by whole seconds and size: an edit right after a start would be missed.
        sys.dont_write_bytecode = True
    with scratch_folder() as run_dir:
        try:
            sock = listening_socket(options.listen, DEFAULT_LISTEN)
            files = ProjectFiles(options.root.resolve(), env) if options.reload else None
            seen = files.read().files if files else {}
            served = find_functions(options, env) if not options.reload else functions_or_none_yet(options, env, log)
            config = dev_config(options, env, run_dir, served)
        except ValueError as exc:
            log.note(f"error: {exc}", "dev.failed", error=str(exc))
            return leave(1, log)
        watching = partial(watch, files, seen, polls=polls_files(env)) if files and served.watched is not None else None
        status = event_loop.run(_serve(config, served, watching, sock, log))
    return leave(status, log)


class _Server(uvicorn.Server):
    """uvicorn's server with two changes. A signal ends the program with status 0 after the shutdown, instead of killing
    it. A second signal ends it without waiting for requests. `on_stop` cancels running work, so that waiting callers
    are answered.
    """

    def __init__(self, config: uvicorn.Config, on_stop: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_stop = on_stop

    def take_signals(self) -> None:
        """From now on a signal is a request to end. Called before anything is printed, because whoever reads that it
        listens may already want to stop it.
        """
        loop = asyncio.get_running_loop()
        leave_forks_alone()
        for number in stop_signals():
            loop.add_signal_handler(number, self._stop)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    def _stop(self) -> None:
        self.force_exit = self.should_exit
        self.should_exit = True
        self._on_stop()


Watching = Callable[[DevApp, Log], Coroutine[None, None, None]]


async def _serve(dev: DevConfig, served: Served, watching: Watching | None, sock: socket.socket, log: Log) -> int:
    try:
        app = DevApp(dev, log)
    except ValueError as exc:  # an author's model manager that cannot be loaded
        log.note(f"error: {exc}", "dev.failed", error=str(exc))
        return 1
    app.refuse_code(served.problem)
    shown = url_of(sock)
    server = _Server(quiet_config(app.asgi), app.cancel_runs)
    server.take_signals()
    settle_interpreter()
    names = sorted(spec.name for spec in served.functions)
    listening = f"listening on {shown} ({', '.join(names) or 'no functions yet'}); try it at {shown}/docs"
    log.note(listening, "dev.listening", url=shown, docs=f"{shown}/docs", functions=names)
    if not is_loopback(sock.getsockname()[0]):
        warning = "anyone who reaches this address can run these functions; there is no authentication"
        log.note(f"warning: {warning}", "dev.open", warning=warning)
    async with asyncio.TaskGroup() as tasks:
        ready = tasks.create_task(app.make_ready(), name="make ready")
        watcher = tasks.create_task(watching(app, log), name="reload") if watching else None
        try:
            await server.serve(sockets=[sock])
        finally:
            await app.close()
            ready.cancel()
            if watcher is not None:
                watcher.cancel()
            leave(0, log, 0.0 if server.force_exit else GRACE_S)  # before the loop waits for tasks that the author's code left
    return 0
