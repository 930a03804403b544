"""Runs the snippets of a documentation page, in order, in a scratch folder.

    ```python title="src/my_worker/main.py"      the file is written
    ```toml title="cozy.toml"
    ```python title="src/my_worker/main.py (add)"   is added to the end of the file
    ```console
    $ cozyctl run generate -i prompt=world       a command; one that ends with & goes on beside the others
    {"text": "Hello, world!"}                    its output: these lines come, in this order; `...` stands for anything
    ```
    <!-- not run: it needs a GPU -->             before a snippet that is not run, with the reason

Every other snippet of these languages is an error: whoever writes a page decides.
"""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import msgspec

from tests.free_ports import free_port

CHECKED = ("python", "console", "bash", "sh", "toml", "json", "typescript")
LIMIT_S = 60.0
_FENCE = re.compile(r"(?m)^(?P<indent> *)```(?P<language>\w+)(?P<options>[^\n]*)\n(?P<text>.*?)^(?P=indent)```", re.DOTALL)
_NOT_RUN = re.compile(r"<!-- not run: (.+?) -->\s*$")
# What differs from run to run.
_VARIES = (
    (re.compile(r"\b[0-9a-f]{24,32}\b"), "ID"),
    (re.compile(r"-[0-9a-f]{12}\b"), "-RELEASE"),
    (re.compile(r"\b\d\d:\d\d:\d\d\b"), "TIME"),
    (re.compile(r"\b(\w*ms)=\d+"), r"\1=N"),
    (re.compile(r"\b\d+(\.\d+)? ?(ms|s|min)\b"), "DURATION"),
)


class Snippet(msgspec.Struct, frozen=True):
    """A fenced block. `why_not` is the reason why it is not run; None where it is."""

    language: str
    title: str
    text: str
    line: int
    why_not: str | None


def snippets_of(page: str) -> Iterator[Snippet]:
    """All blocks of the languages that are checked."""
    for found in _FENCE.finditer(page):
        if found["language"] in CHECKED:
            title = re.search(r'title="([^"]+)"', found["options"])
            reason = _NOT_RUN.search(page[: found.start()].rstrip())
            text = re.sub(f"(?m)^{found['indent']}", "", found["text"])
            line = page.count("\n", 0, found.start()) + 1
            yield Snippet(found["language"], title[1] if title else "", text, line, reason[1] if reason else None)


class Session:
    """One page at work."""

    def __init__(self, folder: Path, env: Mapping[str, str] = {}) -> None:
        self.cwd = folder
        self._scratch = folder
        dev, up = free_port(), free_port()
        self._ports = {"8081": str(dev), "8080": str(up)}
        self._servers: list[tuple[subprocess.Popen[bytes], Path]] = []
        home = folder.with_name(f"{folder.name}-home")
        home.mkdir(exist_ok=True)
        self._env = {
            **{key: value for key, value in os.environ.items() if not key.startswith(("COZY", "GEN_", "WORKER_"))},
            "HOME": str(home),
            "XDG_DATA_HOME": str(home / "data"),
            "XDG_CONFIG_HOME": str(home / "config"),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "GEN_WORKER_HTTP_LISTEN": f"127.0.0.1:{dev}",
            "COZY_URL": f"http://127.0.0.1:{up}",
            "NO_COLOR": "1",
            "COLUMNS": "100",
            **env,
        }

    def run(self, snippet: Snippet) -> None:
        """Do what a snippet says; `AssertionError` where something else comes than it shows."""
        if snippet.title:
            self._write(snippet)
        elif snippet.language == "console":
            for command, expected in _commands(snippet.text):
                self._command(command, expected, snippet.line)
        elif snippet.language == "python":
            self._command(f"{sys.executable} - <<'EOF'\n{snippet.text}\nEOF", [], snippet.line)
        else:
            raise AssertionError(f"line {snippet.line}: a snippet of {snippet.language} is neither run nor marked with why not")

    def output_of(self, command: str, *, until: str = "") -> str:
        """What a command prints; of one that ends with `&`, until `until` is there."""
        return self._as_shown(self._said(command, [f"{until}..."] if until else [])[0])

    def close(self) -> None:
        for process, _ in self._servers:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
        for process, _ in self._servers:
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(60)

    def _write(self, snippet: Snippet) -> None:
        name, _, how = snippet.title.partition(" ")
        path = self.cwd / name
        path.parent.mkdir(parents=True, exist_ok=True)
        before = path.read_text() if how == "(add)" else ""
        path.write_text(before + snippet.text)

    def _command(self, command: str, expected: list[str], line: int) -> None:
        said, status = self._said(command, expected)
        if status and not any(text.startswith(("error", "Error")) or '"status"' in text for text in expected):
            raise AssertionError(f"line {line}: {command}\nended with status {status}:\n{said}\n{self._of_servers()}")
        missing = _first_missing(expected, self._as_shown(said))
        if missing is not None:
            raise AssertionError(f"line {line}: {command}\ndoes not print:\n    {missing}\nbut:\n{said}\n{self._of_servers()}")

    def _said(self, command: str, expected: list[str]) -> tuple[str, int]:
        """What a command prints, and its status; a server is started, and has printed what is expected."""
        for shown, real in self._ports.items():
            command = re.sub(rf"\b{shown}\b", real, command)
        command = re.sub(r"\bcozyctl up\b", f"cozyctl up --listen 127.0.0.1:{self._ports['8080']}", command)
        if command.rstrip().endswith("&"):
            return self._start(command.rstrip().removesuffix("&"), expected), 0
        where = self._scratch.with_name(f"{self._scratch.name}-cwd")
        done = subprocess.run(
            ["bash", "-c", f"{command}\nstatus=$?\npwd > {where}\nexit $status"],
            cwd=self.cwd,
            env=self._env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=LIMIT_S,
            check=False,
        )
        self.cwd = Path(where.read_text().strip())
        return done.stdout.decode(errors="replace"), done.returncode

    def _start(self, command: str, expected: list[str]) -> str:
        """Start a server, and wait until it has printed what is expected."""
        log = self._scratch.with_name(f"{self._scratch.name}-server{len(self._servers)}")
        with log.open("wb") as file:
            process = subprocess.Popen(
                ["bash", "-c", f"exec {command}"],
                cwd=self.cwd,
                env=self._env,
                stdout=file,
                stderr=file,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        self._servers.append((process, log))
        deadline_s = time.monotonic() + LIMIT_S
        while _first_missing(expected, self._as_shown(said := log.read_text(errors="replace"))) is not None:
            if process.poll() is not None or time.monotonic() > deadline_s:
                return said
            time.sleep(0.02)  # waits: for what the server prints
        return said

    def _as_shown(self, text: str) -> str:
        for shown, real in self._ports.items():
            text = re.sub(rf"\b{real}\b", shown, text)
        return text.replace(str(self._scratch), "~")

    def _of_servers(self) -> str:
        return "\n".join(f"server: {log.read_text(errors='replace')[-2000:]}" for _, log in self._servers)


@contextmanager
def session(folder: Path) -> Iterator[Session]:
    """A session in a new folder, whose servers end with it."""
    folder.mkdir()
    opened = Session(folder)
    try:
        yield opened
    finally:
        opened.close()


def _commands(text: str) -> Iterator[tuple[str, list[str]]]:
    """Commands with the lines that they print. A line that ends with a backslash goes on."""
    command: list[str] = []
    expected: list[str] = []
    for line in text.splitlines():
        if line.startswith("$ ") and not (command and command[-1].endswith("\\")):
            if command:
                yield "\n".join(command), expected
            command, expected = [line[2:]], []
        elif command and (command[-1].endswith("\\") or line.startswith("> ")):
            command.append(line.removeprefix("> "))
        else:
            assert command, f"{line!r} stands before the first command; commands begin with `$ `"
            expected.append(line)
    if command:
        yield "\n".join(command), expected


def _first_missing(expected: list[str], said: str) -> str | None:
    """The first expected line that does not come, after those before it."""
    lines = iter([_settled(line) for line in said.splitlines()])
    for line in expected:
        if not line.strip() or line.strip() == "...":
            continue
        pattern = ".*".join(re.escape(part) for part in _settled(line).split("..."))
        if not any(re.fullmatch(pattern, each) for each in lines):
            return line
    return None


def _settled(line: str) -> str:
    line = " ".join(line.split())
    for varies, word in _VARIES:
        line = varies.sub(word, line)
    return line
