"""Workers of the published package gen-worker 0.3.2, in a separate environment, with a project that this package can serve, too."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

PYTHON = Path(sys.prefix) / "published" / "bin" / "python"  # `make test` sets it up where the package index has it
VERSION = "0.3.2"
COZY_TOML = """\
schema_version = 1
name = "probe"
main = "probe.main"
gen_worker = ">=0.2.0,<1"

[scaling]
max = 0
"""
MAIN = """\
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
from gen_worker import ActionContext, RealtimeSocket, worker_function, worker_websocket
from gen_worker.errors import RetryableError
from gen_worker.types import Asset

class Input(msgspec.Struct):
    text: str = ""
    seconds: float = 0.0
    times: int = 0
    folder: str = ""

class Output(msgspec.Struct):
    text: str

class Delta(msgspec.Struct):
    number: int

class Saved(msgspec.Struct):
    file: Asset

class Given(msgspec.Struct):
    file: Asset

def note(payload: Input, line: str) -> int:
    path = Path(payload.folder) / "notes"
    with path.open("a") as file:
        file.write(line + "\\n")
    return len(path.read_text().splitlines())

@worker_function()
def echo(ctx: ActionContext, payload: Input) -> Output:
    return Output(text=payload.text)

@worker_function()
def sleep(ctx: ActionContext, payload: Input) -> Output:
    note(payload, f"{payload.text} began")
    end = time.monotonic() + payload.seconds
    while time.monotonic() < end and not (Path(payload.folder) / "go").exists():
        if ctx.is_canceled():
            raise InterruptedError("canceled")
        time.sleep(0.01)
    note(payload, f"{payload.text} ended")
    return Output(text=payload.text)

@worker_function()
def count(ctx: ActionContext, payload: Input) -> Iterator[Delta]:
    for number in range(payload.times):
        if ctx.is_canceled():
            return
        time.sleep(payload.seconds)
        yield Delta(number=number)

@worker_function()
def refuse(ctx: ActionContext, payload: Input) -> Output:
    raise ValueError("text is empty")

@worker_function()
def later(ctx: ActionContext, payload: Input) -> Output:
    if note(payload, "try") < payload.times:
        raise RetryableError("not yet")
    return Output(text="at last")

@worker_function()
def save(ctx: ActionContext, payload: Input) -> Saved:
    return Saved(file=ctx.save_bytes(f"runs/{ctx.run_id}/outputs/note.txt", payload.text.encode()))

@worker_function()
def read(ctx: ActionContext, payload: Given) -> Output:
    return Output(text=Path(payload.file.local_path).read_text())

@worker_websocket()
async def mirror(ctx: ActionContext, sock: RealtimeSocket) -> None:
    await sock.send_json("here")  # on a busy machine its thread may run late, and what came before is lost
    async for data in sock.iter_bytes():
        if data == b"fail":
            raise ValueError("as asked")
        if data == b"close":
            await sock.close()
            return
        if data.startswith(b"flood"):
            for n in range(int(data.split()[1])):
                await sock.send_bytes(n.to_bytes(4, "big") + bytes(100_000))
        else:
            await sock.send_json({"heard": len(data)})
"""
# The package reads its manifest from one place in an image, and nowhere else.
_START = """
import sys
from pathlib import Path
import gen_worker.entrypoint as entrypoint
entrypoint.MANIFEST_PATH = Path(sys.argv[1])
sys.exit(entrypoint._run_main())
"""


def write_published_project(folder: Path) -> Path:
    """A project whose workers all join by hand."""
    (folder / "src" / "probe").mkdir(parents=True)
    (folder / "cozy.toml").write_text(COZY_TOML)
    (folder / "src" / "probe" / "__init__.py").write_text("")
    (folder / "src" / "probe" / "main.py").write_text(MAIN)
    return folder


@contextmanager
def published_worker(project: Path, scheduler: str, token: str, **env: str) -> Iterator["subprocess.Popen[bytes]"]:
    """One such worker; its log is `published.log` beside the project. Skips the test where the package is not installed."""
    if not PYTHON.exists():
        pytest.skip(f"gen-worker {VERSION} is not installed in {PYTHON.parent.parent.name}; make test does that where the index has it")
    path = {**os.environ, "PYTHONPATH": str(project / "src")}
    found = subprocess.run([str(PYTHON), "-m", "gen_worker.discover"], cwd=project, env=path, capture_output=True, timeout=60, check=True)
    manifest = project.parent / "published-manifest.json"
    manifest.write_bytes(found.stdout)
    assert json.loads(found.stdout)["functions"]
    caches = {name: str(project.parent / "published" / name.lower()) for name in ("WORKER_RUN_DIR", "TENSORHUB_CACHE_DIR")}
    env = {**path, **caches, "SCHEDULER_PUBLIC_ADDR": scheduler, "WORKER_JWT": token, "RECONNECT_DELAY": "1", "USE_TLS": "false", **env}
    with (project.parent / "published.log").open("ab") as log:
        process = subprocess.Popen([str(PYTHON), "-c", _START, str(manifest)], cwd=project, env=env, stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
