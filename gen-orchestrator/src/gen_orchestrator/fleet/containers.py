"""Workers in containers of this machine, by docker, podman or buildah. What the client of the engine writes is the worker's log.

    start: (buildah: make a container) -> `run` in the foreground, with the worker's variables -> it connects to the scheduler
    stop:  SIGTERM to the client, which passes it on -> after the grace the container is killed -> it is removed

A container outlives a platform that is killed, if its engine is a service: the next start of the same platform removes what is left. Models
are cached in a folder for each owner, outside of the containers.
"""

import asyncio
import contextlib
import hashlib
import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from gen_orchestrator.child_environment import ChildEnvironment
from gen_orchestrator.fleet.base import OnExit, WorkerSpec
from gen_orchestrator.fleet.children import Children
from gen_orchestrator.fleet.container_commands import Commands, commands_of, container_environment
from gen_orchestrator.fleet.log_files import MAX_BYTES
from gen_orchestrator.fleet.processes import is_outlived
from gen_worker.images.engines import Engine, EngineError

QUICK_S = 60.0


class Containers(Children):
    """A fleet of containers. `place` distinguishes this platform from others on the machine; `caches` is the folder for models.
    `defaults`: variables for workers, unless `environment` has them.
    """

    def __init__(
        self,
        logs: Path,
        caches: Path,
        place: str,
        find: Callable[[], Engine],
        environment: ChildEnvironment,
        defaults: Mapping[str, str],
        max_log_bytes: int = MAX_BYTES,
    ) -> None:
        super().__init__(logs, max_log_bytes)
        self._caches = caches
        self._prefix = f"gen-orchestrator-{hashlib.sha256(place.encode()).hexdigest()[:12]}-"
        self._find = find
        self._environment = environment
        self._defaults = dict(defaults)
        self._commands: Commands | None = None
        self._finding = asyncio.Lock()

    async def start(self, spec: WorkerSpec, on_exit: OnExit) -> None:
        commands = await self._engine()
        name = self._prefix + spec.worker_id
        try:
            child = await self._run(commands, name, spec)
        except BaseException:
            await _ask(commands.remove(name))
            raise
        await self._keep(spec.worker_id, child, on_exit, stays=is_outlived(spec))

    async def _run(self, commands: Commands, name: str, spec: WorkerSpec) -> asyncio.subprocess.Process:
        # Images of one endpoint usually run as one user, and files cached by root are not writable for others.
        cache = self._caches / spec.owner / spec.release_id.rpartition("-")[0]
        await asyncio.to_thread(_make_cache, cache)
        env = container_environment(spec, {**self._defaults, **self._environment})
        if made := commands.create(name, spec.image):
            status, said = await _ask(made)
            if status:
                raise OSError(f"{spec.image}: {said}")
        with self._log_file(spec.worker_id).open("ab") as log:
            child = await asyncio.create_subprocess_exec(
                *commands.run(name, spec, tuple(env), cache),
                env={**self._environment, **env},
                stdin=asyncio.subprocess.PIPE if commands.by_stdin else asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        if child.stdin is not None:
            child.stdin.write(msgspec.json.encode(env))
            child.stdin.close()
        return child

    async def stop(self, worker_id: str, grace_s: float) -> None:
        child, waiting = self._children.get(worker_id), self._waiting.get(worker_id)
        if child is None or waiting is None or self._commands is None:
            return
        if grace_s > 0:
            with contextlib.suppress(ProcessLookupError):
                child.send_signal(signal.SIGTERM)
        done, _ = await asyncio.wait([waiting], timeout=grace_s)
        if not done:
            if kill := self._commands.kill(self._prefix + worker_id):
                await _ask(kill)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            await asyncio.wait([waiting])

    async def _clear_up(self, worker_id: str) -> None:
        if self._commands is not None:
            await _ask(self._commands.remove(self._prefix + worker_id))  # most are already gone

    async def _engine(self) -> Commands:
        """The engine; found when the first container starts. Containers left by an earlier process of this platform are
        then removed. `OSError` without an engine.
        """
        async with self._finding:
            if self._commands is None:
                try:
                    commands = commands_of((await asyncio.to_thread(self._find)).command)
                except EngineError as exc:
                    raise OSError(str(exc)) from None
                _, said = await _ask(commands.names())
                for name in said.split():
                    if name.startswith(self._prefix):
                        await _ask(commands.remove(name))
                self._commands = commands
            return self._commands


def _make_cache(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o1777)  # an image's author chooses its user


async def _ask(command: list[str]) -> tuple[int, str]:
    """Run a short command; returns its status and output, after a failure the last lines."""
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(QUICK_S):
            out, err = await process.communicate()
    except TimeoutError:
        return 1, f"{' '.join(command)} took longer than {QUICK_S:.0f} s"
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        return process.returncode, " / ".join(err.decode(errors="replace").strip().splitlines()[-3:])
    return 0, out.decode(errors="replace")
