"""A program on its own terminal, as a person starts it: its output, and Ctrl-C."""

import fcntl
import os
import pty
import re
import signal
import subprocess
import termios
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

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
        self._seen, self._more = bytearray(), threading.Condition()
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
        with self._more:
            came = self._more.wait_for(lambda: wanted in self.text, LIMIT_S)
        assert came, f"{wanted!r} did not come in:\n{self.text}"

    @property
    def lines(self) -> list[str]:
        """The lines without colours and the like, as far as they are not painted over."""
        return [line.rpartition("\r")[2] for line in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.text).replace("\r\n", "\n").split("\n")]

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
            with self._more:
                self._seen += part
                self._more.notify_all()
