"""Uploads and downloads of a platform beside a bare Starlette handler, by curl, and the memory that they take.

    python gen-orchestrator/benchmarks/files.py [--gb 2] [--rounds 3]

The bare handler writes each piece of a body to a file and answers a GET with FileResponse: no hash, no fsync, no limits, no ranges of
its own. Both servers lie on one machine and one disk, and take turns.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from pathlib import Path

BARE = """
import sys
from pathlib import Path
import uvicorn
from starlette.applications import Starlette
from starlette.responses import FileResponse, PlainTextResponse
from starlette.routing import Route

place = Path(sys.argv[1])

async def put(request):
    with place.open("wb") as file:
        async for chunk in request.stream():
            file.write(chunk)
    return PlainTextResponse("kept")

async def get(request):
    return FileResponse(place)

app = Starlette(routes=[Route("/file", put, methods=["PUT"]), Route("/file", get)])
uvicorn.run(app, host="127.0.0.1", port=0, log_level="info", access_log=False)
"""


def curl(*arguments: str) -> float:
    """How long it took, in seconds."""
    command = ["curl", "-sS", "--noproxy", "*", "--fail", "-o", "/dev/null", "-w", "%{time_total}", *arguments]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def processor_s(pid: int) -> float:
    """Seconds of the processor that a process and its threads have taken: what a busy machine does not change."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Memory:
    """The resident memory of a process, sampled."""

    def __init__(self, pid: int) -> None:
        self._status = Path(f"/proc/{pid}/status")
        self.idle_kib = self._now()
        self.most_kib = 0
        self._ended = threading.Event()
        self._sampling = threading.Thread(target=self._sample)
        self._sampling.start()

    def stop(self) -> None:
        self._ended.set()
        self._sampling.join()

    def _sample(self) -> None:
        while not self._ended.wait(0.02):
            self.most_kib = max(self.most_kib, self._now())

    def _now(self) -> int:
        line = next(line for line in self._status.read_text().splitlines() if line.startswith("VmRSS:"))
        return int(line.split()[1])


def url_in(log: Path) -> str:
    until_s = time.monotonic() + 60
    while time.monotonic() < until_s:
        for word in log.read_text().split():
            if word.startswith("http://127.0.0.1:"):
                return word
        time.sleep(0.05)
    raise SystemExit(log.read_text())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gb", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", help="where both keep what they are sent, instead of the temporary folder")
    asked = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="files-", dir=asked.folder))
    servers: list[subprocess.Popen[bytes]] = []
    try:
        file = folder / "sent"
        piece = os.urandom(10_000_000)
        with file.open("wb") as out:
            for _ in range(int(asked.gb * 1e9) // 10_000_000):
                out.write(piece)
        (folder / "bare.py").write_text(textwrap.dedent(BARE))
        project = folder / "p"
        (project / "src" / "p").mkdir(parents=True)
        (project / "cozy.toml").write_text('schema_version = 1\nname = "p"\nmain = "p.main"\ngen_worker = ">=0.2.0,<0.3.0"\n')
        (project / "src" / "p" / "__init__.py").write_text("")
        (project / "src" / "p" / "main.py").write_text(
            "import msgspec\nfrom gen_worker import ActionContext, worker_function\nclass T(msgspec.Struct):\n    text: str = ''\n"
            "@worker_function()\ndef echo(ctx: ActionContext, payload: T) -> T:\n    return payload\n"
        )
        cozyctl = str(Path(sys.executable).parent / "cozyctl")
        bare_log = folder / "bare.log"
        with bare_log.open("wb") as log:
            servers.append(subprocess.Popen([sys.executable, str(folder / "bare.py"), str(folder / "kept")], stdout=log, stderr=log))
        up = [cozyctl, "up", str(project), "--json", "--listen", "127.0.0.1:0", "--data", str(folder / "data")]
        ours = subprocess.Popen(up, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        servers.append(ours)
        assert ours.stdout is not None
        urls = {"bare": f"{url_in(bare_log)}/file", "ours": json.loads(ours.stdout.readline())["url"] + "/v1/files/local/uploads/x"}
        pids = {"bare": servers[0].pid, "ours": ours.pid}
        used = {f"{what} {who}": 0.0 for what in ("upload", "download") for who in urls}
        took: dict[str, list[float]] = {f"{what} {who}": [] for what in ("upload", "download") for who in urls}
        memory = Memory(ours.pid)
        for _ in range(asked.rounds):
            for who, url in urls.items():
                for what, arguments in (("upload", ("-T", str(file))), ("download", ())):
                    before_s = processor_s(pids[who])
                    took[f"{what} {who}"].append(curl(*arguments, url))
                    used[f"{what} {who}"] += processor_s(pids[who]) - before_s
        memory.stop()
        for name, seconds in took.items():
            print(
                f"{name:14} {asked.gb / statistics.median(seconds):5.2f} GB/s (median of {len(seconds)}; {asked.gb / min(seconds):.2f} at best)"
            )
        for what in ("upload", "download"):
            each = [statistics.median(took[f"{what} {who}"]) for who in ("bare", "ours")]
            turns = statistics.median(bare / ours for bare, ours in zip(took[f"{what} bare"], took[f"{what} ours"], strict=True))
            cost = [used[f"{what} {who}"] / asked.gb / asked.rounds for who in ("bare", "ours")]
            print(f"{what}: {each[0] / each[1]:.2f} of the bare handler by medians, {turns:.2f} turn by turn;", end=" ")
            print(f"seconds of the processor for a GB: bare {cost[0]:.2f}, ours {cost[1]:.2f}")
        print(
            f"memory of the platform: {memory.idle_kib / 1024:.0f} MiB idle, {memory.most_kib / 1024:.0f} MiB at most, {os.getloadavg()[0]:.1f} load"
        )
    finally:
        for server in servers:
            server.terminate()
        for server in servers:
            server.wait(60)
        shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
