"""Start and stop the servers that the benchmarks compare, each in a process of its own."""

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
OPEN_TIMEOUT_S = 60


def command(name: str, port: int, python: str) -> tuple[list[str], Path, str]:
    """Command line, working folder and path of the echo route."""
    match name:
        case "gen-worker" | "gen-worker-async":
            outputs = tempfile.mkdtemp(prefix="gen-worker-bench-")
            arguments = ["-m", "gen_worker.testing.http_runner", "--listen", f"127.0.0.1:{port}", "--outputs", outputs]
            return [python, *arguments], HERE / "endpoint", "/v1/run/async-echo" if name.endswith("async") else "/v1/run/echo"
        case "fastapi-async":
            return [python, str(HERE / "servers/fastapi_server.py"), str(port)], HERE, "/run-async"
        case "mosec":
            return [python, str(HERE / "servers/mosec_server.py"), "--port", str(port), "--log-level", "error"], HERE, "/inference"
        case "handwritten" | "handwritten-executor":
            hop = "executor" if name.endswith("executor") else "threadpool"
            return [python, str(HERE / "servers/handwritten.py"), str(port), hop], HERE, "/run"
        case "bare-hop" | "bare-send":
            return [python, str(HERE / "servers/bare.py"), str(port), name.removeprefix("bare-")], HERE, "/run"
        case _:
            return [python, str(HERE / f"servers/{name}_server.py"), str(port)], HERE, "/run"


def python_with(package: str, python: str = str(Path(sys.prefix) / "peers" / "bin" / "python")) -> str:
    """The Python that has this package: ours, or the one for peers whose dependencies are not to meet ours; empty for none."""
    if importlib.util.find_spec(package):
        return sys.executable
    return python if version_in(python, package) else ""


def version_in(python: str, package: str) -> str:
    """The version of a package in an environment, empty where it is not installed."""
    code = f"import importlib.metadata as m; print(m.version({package!r}))"
    try:
        found = subprocess.run([python, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    except OSError:
        return ""
    return found.stdout.strip()


class Server:
    """A running server, of an environment of its own where `python` is one. `ready_s`: from its start until it answered the echo route."""

    def __init__(self, name: str, python: str = sys.executable) -> None:
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            self.port: int = sock.getsockname()[1]
        line, folder, self.path = command(name, self.port, python)
        began_s = time.perf_counter()
        self.process = subprocess.Popen(line, cwd=folder, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True)
        while not self._answers():
            assert self.process.poll() is None, f"{name} ended with {self.process.returncode}"
            if time.perf_counter() - began_s > OPEN_TIMEOUT_S:
                self.stop()
                raise TimeoutError(f"{name} did not answer")
            time.sleep(0.005)
        self.ready_s = time.perf_counter() - began_s

    def _answers(self) -> bool:
        body = b'{"prompt":"x"}'
        head = f"POST {self.path} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        try:
            with socket.create_connection(("127.0.0.1", self.port), 2) as sock:
                sock.sendall(head.encode() + body)
                return sock.recv(64).startswith(b"HTTP/1.1 200")
        except OSError:
            return False

    def resident_bytes(self) -> int:
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def processor_seconds(self) -> float:
        """What the server and its children have taken of the processors. Unlike requests/s it hardly depends on who else is at work."""
        ticks = 0
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                fields = (folder / "stat").read_text().rsplit(")", 1)[1].split()
            except OSError:  # it has just ended
                continue
            if int(fields[3]) == self.process.pid:  # the session, which the server leads
                ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def stop(self) -> None:
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            pass
        try:
            os.killpg(self.process.pid, signal.SIGKILL)  # what it started and left behind
        except ProcessLookupError:
            pass
        self.process.wait()
