"""A program on a terminal of its own, as a person starts it: what it writes, and Ctrl-C."""

import fcntl
import os
import pty
import signal
import subprocess
import termios
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from waiting import until

LIMIT_S = 60.0


class Terminal:
    """`text` is everything that came so far, with its control sequences."""

    def __init__(
        self, command: Sequence[str | Path], *, cwd: Path | None = None, env: Mapping[str, str] | None = None, columns: int = 120
    ) -> None:
        self._ours, theirs = pty.openpty()
        termios.tcsetwinsize(theirs, (40, columns))
        environment = {key: value for key, value in {**os.environ, "TERM": "xterm-256color", **(env or {})}.items() if key != "NO_COLOR"}

        def take_terminal() -> None:
            fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)

        self.process = subprocess.Popen(
            [str(word) for word in command],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            cwd=cwd,
            env=environment,
            start_new_session=True,
            preexec_fn=take_terminal,
        )
        os.close(theirs)
        self._seen = bytearray()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait(LIMIT_S)
        self._reader.join(LIMIT_S)
        os.close(self._ours)

    @property
    def text(self) -> str:
        return bytes(self._seen).decode(errors="replace")

    def until(self, wanted: str) -> None:
        """Wait until this was written."""
        until(lambda: wanted in self.text, LIMIT_S, lambda: f"{wanted!r} in:\n{self.text}")

    def type(self, keys: str) -> None:
        os.write(self._ours, keys.encode())

    def interrupt(self) -> None:
        """Ctrl-C."""
        self.type("\x03")

    def status(self) -> int:
        """The exit status, once it has ended and all it wrote has been read."""
        status = self.process.wait(LIMIT_S)
        self._reader.join(LIMIT_S)
        return status

    def _read(self) -> None:
        while True:
            try:
                part = os.read(self._ours, 65536)
            except OSError:  # the last program that had the terminal has ended
                return
            if not part:
                return
            self._seen += part
