"""Python environments for published projects: one for each set of requirements, kept and shared by all releases with
the same requirements.

A project that needs only gen-worker runs in the environment of this program. Any other project gets a virtual
environment with the dependencies in its pyproject.toml, and the gen-worker that runs here, because the public index has
another package of that name. With a uv.lock, exactly the locked versions are installed, and their hashes checked.
"""

import asyncio
import contextlib
import hashlib
import importlib.util
import os
import re
import shutil
import signal
import stat
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from gen_orchestrator.child_environment import ChildEnvironment
from gen_orchestrator.hub.lock_files import NAME as LOCK
from gen_orchestrator.hub.lock_files import LockError, Pinned, pinned_in
from gen_worker.project.toml_files import read_toml
from gen_worker.project.wheel import write_wheel

BUILD_TIMEOUT_S = 1800.0
READY = ".ready"
_REMOTE = ("https://", "http://", "git+https://", "git+http://", "git+ssh://")
_NAME = re.compile(r"[A-Za-z0-9._-]+")
_INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "USER", "LD_LIBRARY_PATH", "http_proxy", "https_proxy", "no_proxy")
_PREFIXES = ("PIP_", "UV_", "SSL_", "REQUESTS_", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
_OF_UV = {  # pip's variable: uv's name for it, and the separator of several values
    "PIP_INDEX_URL": ("UV_DEFAULT_INDEX", " "),
    "PIP_EXTRA_INDEX_URL": ("UV_EXTRA_INDEX_URL", " "),
    "PIP_FIND_LINKS": ("UV_FIND_LINKS", ","),
}
_PIP = ("--disable-pip-version-check", "--no-input", "install", "--progress-bar", "off")
Say = Callable[[str], None]


class EnvironmentFailedError(Exception):
    """The environment could not be created; the message has the installer's last lines."""


def requirements_of(source: Path) -> list[str]:
    """A project's requirements besides gen-worker, sorted. `EnvironmentFailedError` for what is not a requirement.

    They become arguments of an installer. An option among them, such as `-r FILE` or `--target FOLDER`, would have it
    read or write files of this machine, and quote them in the build log.
    """
    found = read_toml(source / "pyproject.toml").get("project", {}).get("dependencies", [])
    if not isinstance(found, list):
        raise EnvironmentFailedError("pyproject.toml: dependencies is not a list; expected requirements such as 'numpy>=2'")
    listed = []
    for text in found:
        try:
            wanted = Requirement(text)
        except (InvalidRequirement, TypeError):
            raise EnvironmentFailedError(
                f"pyproject.toml: the dependency {text!r:.200} is not a requirement; expected a package, such as 'numpy>=2'"
            ) from None
        if wanted.url is not None and not wanted.url.lower().startswith(_REMOTE):
            raise EnvironmentFailedError(f"pyproject.toml: the dependency {text!r:.200} names no package index; expected an https URL")
        if canonicalize_name(wanted.name) != "gen-worker":
            listed.append(text.strip())
    return sorted(listed)


def build_environment(env: Mapping[str, str]) -> dict[str, str]:
    """The environment variables of a build's processes: how to reach a package index, and none of the control plane's
    own. If only pip is configured with package locations, uv gets them, too, so that both find the same packages.
    """
    told = {of_uv: sep.join(env[of_pip].split()) for of_pip, (of_uv, sep) in _OF_UV.items() if env.get(of_pip)}
    return told | {name: value for name, value in env.items() if name in _INHERITED or name.startswith(_PREFIXES)}


class Environments:
    """Below `folder`. One caller at a time."""

    def __init__(self, folder: Path, environment: ChildEnvironment) -> None:
        self._folder = folder
        self._environment = build_environment(environment)
        self._made: Path | None = None

    async def python_for(self, source: Path, say: Say) -> str:
        """The interpreter for a project, from a new or an existing environment. `EnvironmentFailedError` when an installer fails."""
        wanted = requirements_of(source)
        if not wanted:
            say("it needs only gen-worker: it runs in this platform's environment")
            return sys.executable
        self._folder.mkdir(parents=True, exist_ok=True)
        try:
            pinned = await asyncio.to_thread(pinned_in, source, tuple(_name(text) for text in wanted))
        except LockError as exc:
            raise EnvironmentFailedError(str(exc)) from None
        wheel = await asyncio.to_thread(self._wheel)
        lines = wanted if pinned is None else [LOCK, *(each.hashed() for each in pinned)]
        key = hashlib.sha256("\n".join([sys.version, wheel.parent.name, *lines]).encode()).hexdigest()[:16]
        target = self._folder / key
        python = target / "bin" / "python"
        if (target / READY).exists():
            say(f"its environment exists already: {', '.join(wanted)}")
            return str(python)
        shutil.rmtree(target, ignore_errors=True)  # left by an interrupted build
        uv = shutil.which("uv")
        if uv:
            await self._run([uv, "venv", "--quiet", "--python", sys.executable, str(target)], say)
            install = [uv, "pip", "install", "--python", str(python)]
        elif importlib.util.find_spec("pip") is not None:  # the running pip, because installing one into each environment takes seconds
            await self._run([sys.executable, "-m", "venv", "--without-pip", str(target)], say)
            install = [sys.executable, "-m", "pip", "--python", str(python), *_PIP]
        else:
            await self._run([sys.executable, "-m", "venv", str(target)], say)
            install = [str(python), "-m", "pip", *_PIP]
        if pinned is None:
            say(f"installing {', '.join(wanted)}")
            await self._run([*install, str(wheel), *wanted], say)
        else:
            say(f"installing what {LOCK} names: {', '.join(each.requirement() for each in pinned)}")
            await self._install_pinned(install, target, pinned, wheel, say)
        await asyncio.to_thread(_open_to_read, target)
        (target / READY).touch()
        return str(python)

    async def _install_pinned(self, install: list[str], target: Path, pinned: list[Pinned], wheel: Path, say: Say) -> None:
        """Install exactly these packages; then gen-worker and its dependencies, which must not change one of them."""
        locked, versions = target / "locked.txt", target / "versions.txt"
        locked.write_text("".join(f"{each.hashed()}\n" for each in pinned))
        versions.write_text("".join(f"{each.requirement()}\n" for each in pinned))
        checks = ["--require-hashes"] if all(each.hashes for each in pinned) else []
        await self._run([*install, "--no-deps", *checks, "-r", str(locked)], say)
        await self._run([*install, str(wheel), "-c", str(versions)], say)

    async def _run(self, command: list[str], say: Say) -> None:
        await run(command, say, self._folder, env=self._environment)

    def _wheel(self) -> Path:
        """The running gen-worker as a wheel, in a folder named after its content."""
        if self._made is not None and self._made.exists():
            return self._made
        made = write_wheel(self._folder)
        digest = hashlib.sha256(made.read_bytes()).hexdigest()[:16]
        target = self._folder / f"wheel-{digest}" / made.name
        target.parent.mkdir(exist_ok=True)
        self._made = made.replace(target)
        return self._made


def _open_to_read(folder: Path) -> None:
    """Let every user read the installed files, whatever this process's umask: published code is imported as another user."""
    for parent, _, names in os.walk(folder):
        _allow(Path(parent), 0o055)
        for path in (Path(parent, name) for name in names):
            if not path.is_symlink():
                _allow(path, 0o055 if path.stat().st_mode & stat.S_IXUSR else 0o044)


def _allow(path: Path, bits: int) -> None:
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode | bits != mode:
        path.chmod(mode | bits)


async def run(
    command: list[str],
    say: Say,
    folder: Path,
    *,
    env: Mapping[str, str],
    timeout_s: float = BUILD_TIMEOUT_S,
    end_s: float = 0.0,
) -> None:
    """Run a command and report its lines as they come. `EnvironmentFailedError` when it fails or takes too long; then
    everything it has started is ended.

    `env`: its environment variables. `end_s`: how long it may clean up when it has to end.
    """
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=folder,
        env=env,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
        limit=1 << 20,
    )
    assert process.stdout is not None
    last: list[str] = []
    try:
        async with asyncio.timeout(timeout_s):
            while line := await _line(process.stdout):
                text = line.decode(errors="replace").rstrip()
                last = [*last[-19:], text]
                say(text)
            status = await process.wait()
    except TimeoutError:
        raise EnvironmentFailedError(f"{Path(command[0]).name} took longer than {timeout_s:.0f} s") from None
    finally:
        if process.returncode is None:
            await _end(process, end_s)
    if status:
        raise EnvironmentFailedError("\n".join(last) or f"{Path(command[0]).name} ended with status {status}")


async def _line(stream: asyncio.StreamReader) -> bytes:
    try:
        return await stream.readline()
    except ValueError:  # a line over the limit is dropped
        return b"(a very long line)\n"


async def _end(process: asyncio.subprocess.Process, end_s: float) -> None:
    with contextlib.suppress(ProcessLookupError):
        if end_s:
            process.terminate()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), end_s)
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()


def _name(requirement: str) -> str:
    found = _NAME.match(requirement)
    return re.sub(r"[-_.]+", "-", found[0]).lower() if found else ""
