"""Nodes of `gen-orchestrator serve` in separate processes."""

import json
import signal
import sys
from pathlib import Path

import httpx
from free_ports import free_port
from platform_process import PlatformProcess

PROGRAM = Path(sys.executable).parent / "gen-orchestrator"


class ServeProcess(PlatformProcess):
    """One node. `start` returns when it answers, whoever leads."""

    def __init__(self, project: Path, data: Path, store: str, name: str, *arguments: str, env: dict[str, str] | None = None) -> None:
        self.port, self.worker_port = free_port(), free_port()
        self._name = name
        self._store = store
        super().__init__(project, data, *arguments, env=env)

    @property
    def worker_address(self) -> str:
        return f"127.0.0.1:{self.worker_port}"

    def start(self) -> None:
        self.log = self.data.parent / f"{self._name}.log"
        self.process = self.launch()
        self.url = f"http://127.0.0.1:{self.port}"
        self.http = httpx.Client(base_url=self.url, timeout=120, trust_env=False)
        self.await_ready()

    def _command(self) -> list[str]:
        return [
            str(PROGRAM), "serve", str(self.project), "--data", str(self.data), "--store", self._store,
            "--listen", f"127.0.0.1:{self.port}", "--worker-listen", self.worker_address, *self._arguments,
        ]  # fmt: skip

    def await_ready(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if json.loads(line)["event"] == "ready":
                return
        raise AssertionError(self.log.read_text()[-4000:])

    def role(self) -> str:
        """`leader`, `standby`, or empty while nobody leads."""
        try:
            answer = self.http.get("/readyz")
        except httpx.HTTPError:
            return ""
        return str(answer.json().get("role", "")) if answer.status_code == 200 else ""

    def pause(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.process.send_signal(signal.SIGCONT)
