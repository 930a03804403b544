"""Websocket handlers served by `cozyctl dev` and by `cozyctl up`, and clients for them."""

import asyncio
import json
import re
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import websockets
from platform_process import COZYCTL, PlatformProcess
from realtime_project import CODE, COZY
from waiting import eventually, until
from websockets.asyncio.client import ClientConnection

HEADER = """\
import asyncio
from pathlib import Path
from typing import Annotated
import msgspec
from gen_worker import *
"""
TERMINAL = ("succeeded", "failed", "canceled", "expired")


def write_realtime(folder: Path, more: str = "") -> Path:
    """The project, with a model beside it."""
    (folder / "project" / "src" / "demo").mkdir(parents=True)
    (folder / "project" / "src" / "demo" / "__init__.py").write_text("")
    (folder / "project" / "src" / "demo" / "main.py").write_text(HEADER + CODE)
    (folder / "project" / "cozy.toml").write_text(
        f'schema_version = 1\nname = "demo"\nmain = "demo.main"\ngen_worker = ">=0.2.0,<0.3.0"\n{COZY}{more}'
    )
    (folder / "model").mkdir()
    (folder / "model" / "weights.txt").write_text("of the model")
    return folder / "project"


class Served:
    """Where the handlers are: `where` is the path before a handler's name."""

    def __init__(self, url: str, where: str, pids: "list[int]") -> None:
        self.url = url
        self.where = where
        self.pids = pids
        self.http = httpx.Client(base_url=url, timeout=60, trust_env=False)

    def close(self) -> None:
        self.http.close()

    @asynccontextmanager
    async def connected(self, path: str, **options: Any) -> AsyncIterator[ClientConnection]:
        url = f"{self.url.replace('http', 'ws', 1)}{self.where}/{path}"
        async with websockets.connect(url, proxy=None, max_size=None, open_timeout=60, **options) as client:
            yield client

    def get(self, path: str) -> Any:
        return self.http.get(path).json()

    def run(self, run_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.get(f"/v1/runs/{run_id}")
        return found

    async def ended(self, run_id: str) -> dict[str, Any]:
        """The run of a session, once it is over."""
        await eventually(lambda: self.run(run_id).get("status") in TERMINAL, 60)
        return self.run(run_id)

    def call(self, function: str) -> httpx.Response:
        """Run one of the project's functions."""
        path = f"/v1/run/{function}" if self.where == "/v1/realtime" else f"{self.where}/{function}"
        answer = self.http.post(path, json={"payload": {}})
        assert answer.status_code == 200, answer.text
        return answer

    def peak_bytes(self) -> int:
        """The most memory that each of its processes has ever had, in sum."""
        return sum(int(re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())[1]) << 10 for pid in self.pids)


@contextmanager
def dev_served(folder: Path) -> Iterator[Served]:
    project = write_realtime(folder)
    command = [str(COZYCTL), "dev", "--folder", str(project), "--listen", "127.0.0.1:0", "--outputs", str(folder / "out"), "--json"]
    lines = folder / "dev.log"
    with lines.open("wb") as log:
        process = subprocess.Popen([*command, "--model", f"a={folder / 'model'}"], stdout=subprocess.DEVNULL, stderr=log)
    try:
        url = until(lambda: [json.loads(line)["url"] for line in lines.read_text().split("\n")[:-1] if "dev.listening" in line], 60)[0]
        with closing(Served(url, "/v1/realtime", [process.pid])) as served:
            yield served
    finally:
        process.terminate()
        process.wait(60)


@contextmanager
def up_served(folder: Path, *arguments: str, more: str = "", env: dict[str, str] | None = None) -> Iterator[tuple[Served, PlatformProcess]]:
    project = write_realtime(folder, more)
    platform = PlatformProcess(project, folder / "data", "--model", f"a={folder / 'model'}", *arguments, env=env)
    try:
        with closing(Served(platform.url, "/v1/local/demo", [platform.process.pid])) as served:
            yield served, platform
    finally:
        platform.close()


async def end_of(client: ClientConnection) -> tuple[int, str]:
    """The close code and reason, once all else is read."""
    try:
        while True:
            await asyncio.wait_for(client.recv(), 60)
    except websockets.ConnectionClosed as closed:
        assert closed.rcvd is not None, "it broke off"
        return closed.rcvd.code, closed.rcvd.reason
