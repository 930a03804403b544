"""A platform in a separate process, with a project written for the tests, and helpers for its callers."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx
from probe_project import COZY_TOML, MAIN
from task_functions import TASK_FUNCTIONS
from waiting import until

COZYCTL = Path(sys.executable).parent / "cozyctl"


def write_project(folder: Path) -> Path:
    """The project that the tests serve."""
    (folder / "src" / "probe").mkdir(parents=True)
    (folder / "cozy.toml").write_text(COZY_TOML)
    (folder / "src" / "probe" / "__init__.py").write_text("")
    (folder / "src" / "probe" / "main.py").write_text(MAIN + TASK_FUNCTIONS)
    return folder


class PlatformProcess:
    """`cozyctl up`, started; `stop`, `kill` and `start` again as often as a test likes."""

    def __init__(self, project: Path, data: Path, *arguments: str, env: Mapping[str, str] | None = None) -> None:
        self.project = project
        self.data = data
        self._arguments = arguments
        self._env = {**os.environ, **(env or {})}
        self.log = data.parent / "up.log"
        self.http: httpx.Client
        self.start()

    def start(self) -> None:
        """Start, and wait until it serves."""
        self.process = self.launch()
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.log.read_text()[-4000:]
        self.url = json.loads(line)["url"]
        self.http = httpx.Client(base_url=self.url, timeout=120, trust_env=False)

    def launch(self) -> "subprocess.Popen[bytes]":
        """Only start the process."""
        with self.log.open("ab") as log:
            return subprocess.Popen(self._command(), stdout=subprocess.PIPE, stderr=log, env=self._env)

    def _command(self) -> list[str]:
        return [str(COZYCTL), "up", str(self.project), "--json", "--listen", "127.0.0.1:0", "--data", str(self.data), *self._arguments]

    def stop(self, timeout_s: float = 60) -> int:
        """End it in order; its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self._gone(timeout_s)

    def ended(self, timeout_s: float = 60) -> int:
        """Wait for the end of one that was told to end; its exit status."""
        return self._gone(timeout_s)

    def kill(self) -> None:
        """End it as a power cut would."""
        self.process.kill()
        self._gone(30)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self._gone(60)
            except subprocess.TimeoutExpired:
                self.kill()

    def invoke(self, function: str, payload: dict[str, Any] | None = None, *, tag: str = "", headers: dict[str, str] | None = None,
               **options: Any) -> httpx.Response:  # fmt: skip
        name = f"{function}:{tag}" if tag else function
        return self.http.post(f"/v1/local/probe/{name}", json={"payload": payload or {}, **options}, headers=headers)

    def submit(self, function: str, payload: dict[str, Any] | None = None, **options: Any) -> str:
        """Start a run and do not wait; its id."""
        answer = self.invoke(function, payload, headers={"prefer": "respond-async"}, **options)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def run(self, run_id: str, wait_s: int = 0) -> dict[str, Any]:
        answer = self.http.get(f"/v1/runs/{run_id}", params={"wait": wait_s} if wait_s else None)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = self.http.get("/v1/status").json()
        return found

    def worker_pids(self) -> dict[str, int]:
        """Process ids of the workers that run, by worker id."""
        return {worker_id: pid for pid, worker_id in self.worker_processes().items()}

    def worker_processes(self) -> dict[int, str]:
        """Worker ids of the processes that this platform has started as workers."""
        return {
            pid: environment.get("WORKER_ID", "")
            for pid in _children_of(self.process.pid)
            if (environment := _environment_of(pid)).get("GEN_ORCHESTRATOR_PID") == str(self.process.pid)
        }

    def reapers(self) -> list[int]:
        """Process ids of what ends the workers' leftovers."""
        return [pid for pid in _children_of(self.process.pid) if "leftovers.py" in _command_of(pid)]

    def figures(self) -> dict[str, float]:
        """What `/metrics` says, by name and labels, without the prefix."""
        lines = [line.removeprefix("gen_orchestrator_").rpartition(" ") for line in self.http.get("/metrics").text.splitlines()]
        return {name: float(value) for name, _, value in lines if not name.startswith("#")}

    def until(self, check: Callable[[], Any], timeout_s: float = 60) -> Any:
        """What `check` gives once it is true."""
        return until(check, timeout_s, lambda: self.log.read_text()[-4000:])

    def events(self, run_id: str, last_id: str = "") -> list[tuple[str, str, Any]]:
        """All events of a run to its end: id, name, data."""
        headers = {"accept": "text/event-stream"} | ({"last-event-id": last_id} if last_id else {})
        with self.http.stream("GET", f"/v1/runs/{run_id}/events", headers=headers) as answer:
            assert answer.status_code == 200, answer.read()
            return list(read_events(answer))

    def wait_for_end(self, timeout_s: float = 60) -> int:
        """It was told to end: its exit status."""
        return self._gone(timeout_s)

    def _gone(self, timeout_s: float) -> int:
        self.http.close()
        status = self.process.wait(timeout_s)
        if self.process.stdout is not None:
            self.process.stdout.close()
        return status


def _children_of(pid: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = path.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if int(parent) == pid and state != "Z":
            found.append(int(path.parent.name))
    return found


def _environment_of(pid: int) -> dict[str, str]:
    try:
        text = Path(f"/proc/{pid}/environ").read_text()
    except OSError:
        return {}
    return dict(entry.split("=", 1) for entry in text.split("\0") if "=" in entry)


def _command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def read_events(answer: httpx.Response) -> Any:
    """Events of a stream as they come: id, name, data."""
    ident = name = data = ""
    for line in answer.iter_lines():
        if not line:
            if name:
                yield ident, name, json.loads(data)
            ident = name = data = ""
        elif not line.startswith(":"):
            field, _, value = line.partition(": ")
            if field == "id":
                ident = value
            elif field == "event":
                name = value
            else:
                data = value


def kill(pid: int, number: signal.Signals = signal.SIGKILL) -> None:
    os.kill(pid, number)
