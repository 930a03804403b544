"""Reads the functions of a project in a separate process, which imports the author's code.

For a folder that its author serves, this is the same as if the author had imported it. Published code is isolated: it
gets none of our variables. If we are root, it runs as a separate user with a copy of the source, and cannot read our
files. All processes that it starts end with it. That user must be able to reach the interpreter and its packages. If it
cannot (they are below a closed folder, such as root's home), the code runs as our own user, and the build log says so.
"""

import asyncio
import contextlib
import os
import secrets
import shutil
import signal
import stat
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import gen_worker.names
from gen_orchestrator.child_environment import ChildEnvironment
from gen_orchestrator.hub.folders import FolderError
from gen_worker.scratch import scratch_folder

TIMEOUT_S = 300.0
MAX_MANIFEST_BYTES = 16 << 20
_SEEN = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH")
_FIRST_USER, _USERS = 0x70000000, 1 << 20  # user ids that no system assigns


async def discover(
    python: str,
    source: Path,
    environment: ChildEnvironment,
    *,
    is_sent: bool = False,
    timeout_s: float = TIMEOUT_S,
    say: Callable[[str], None] = lambda text: None,
) -> bytes:
    """The manifest of a project's source; `FolderError` with discovery's message for broken code. `is_sent`: the code
    is someone else's; `say` is told as which user it is read.
    """
    if not is_sent:
        return await _run(python, source, dict(environment), {}, timeout_s)
    with _room(python, source, say) as (folder, home, user):
        return await _run(python, folder, _environment(environment, home), user, timeout_s)


async def _run(python: str, folder: Path, env: dict[str, str], user: dict[str, Any], timeout_s: float) -> bytes:
    process = await asyncio.create_subprocess_exec(
        python,
        "-m",
        "gen_worker.discover",
        cwd=folder,
        env=env,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
        **user,
    )
    try:
        async with asyncio.timeout(timeout_s):
            out, err = await process.communicate()
    except TimeoutError:
        raise FolderError(f"reading its functions took longer than {timeout_s:.0f} s: does the import of its code hang?") from None
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # including everything that the code has started
        await process.wait()
    if process.returncode != 0:
        raise FolderError(err.decode(errors="replace").strip()[-4000:] or f"discovery ended with status {process.returncode}")
    if len(out) > MAX_MANIFEST_BYTES:
        raise FolderError(f"the manifest has {len(out)} bytes; at most {MAX_MANIFEST_BYTES} are kept")
    return out


@contextlib.contextmanager
def _room(python: str, source: Path, say: Callable[[str], None]) -> Iterator[tuple[Path, Path, dict[str, Any]]]:
    """Where uploaded code is imported: the folder, an empty home, and the user."""
    with scratch_folder("discovery") as room:
        home = room / "home"
        home.mkdir()
        needed = (room.parent, *_interpreter(Path(python)))
        closed = [path for path in needed if not _is_open(path)] if os.geteuid() == 0 else []
        if os.geteuid() != 0 or closed:
            where = f": other users cannot reach {closed[0]}" if closed else ""
            say(f"reading its functions as the user of this platform{where}")
            yield source, home, {}
            return
        say("reading its functions as a separate user")
        number = _FIRST_USER + secrets.randbelow(_USERS)
        room.chmod(0o755)
        folder = room / "source"
        shutil.copytree(source, folder)
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        os.chown(home, number, number)
        yield folder, home, {"user": number, "group": number, "extra_groups": []}


def _interpreter(python: Path) -> tuple[Path, ...]:
    """The interpreter, and where it finds gen-worker."""
    own = python.parent.parent / "pyvenv.cfg"
    return (python, own) if python != Path(sys.executable) and own.exists() else (python, Path(gen_worker.names.__file__))


def _environment(env: Mapping[str, str], home: Path) -> dict[str, str]:
    kept = {name: value for name, value in env.items() if name in _SEEN}
    return kept | {"HOME": str(home), "TMPDIR": str(home), "PYTHONDONTWRITEBYTECODE": "1"}


def _is_open(path: Path) -> bool:
    """Whether everybody may read this path and traverse all folders above it; for a link, also its target."""
    for each in {path.absolute(), path.resolve()}:
        if not each.stat().st_mode & stat.S_IROTH or not all(parent.stat().st_mode & stat.S_IXOTH for parent in each.parents):
            return False
    return True
