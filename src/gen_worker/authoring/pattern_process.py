"""Tries patterns in a separate process, so that one that takes for ever blocks nothing else.

`re` holds Python's global lock while it searches: no thread, deadline or heartbeat of the same process gets a turn. See
docs/adr/0014-patterns-in-a-process.md.
"""

import json
import selectors
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

CPU_S = 0.02  # time limit for searching one payload's texts for one pattern
CPU_S_PER_CHAR = 20e-9  # added for long texts, which take long to read even once
_PATIENCE_S = 20.0  # to wait for an answer, on a machine that gives the process no processor
_CHILD = Path(__file__).with_name("pattern_child.py")


class PatternTooSlowError(Exception):
    """The time for a pattern was up before all texts were searched."""


class PatternProcess:
    """Started when it is first needed. Threads take turns."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = False

    def first_misfit(self, pattern: str, texts: Sequence[str]) -> int | None:
        """The index of the first text that does not match `pattern`, None when all do; `PatternTooSlowError`. Blocks."""
        seconds = CPU_S + CPU_S_PER_CHAR * sum(map(len, texts))
        question = json.dumps([pattern, list(texts), seconds]).encode() + b"\n"
        with self._lock:
            answer = self._ask(question, seconds)
        if answer == b"late":
            raise PatternTooSlowError
        index = int(answer)
        return None if index < 0 else index

    def kill(self) -> None:
        """End the process; the next call starts another."""
        with self._lock:
            self._end()

    def close(self) -> None:
        """End the process."""
        self._closed = True
        self.kill()

    def _ask(self, question: bytes, seconds: float) -> bytes:
        if self._closed:
            raise PatternTooSlowError
        if self._process is None or self._process.poll() is not None:
            self._end()
            command = [sys.executable, "-I", "-S", str(_CHILD)]
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # noqa: S603
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(question)
            process.stdin.flush()
            with selectors.DefaultSelector() as selector:
                selector.register(process.stdout, selectors.EVENT_READ)
                ready = selector.select(_PATIENCE_S + seconds)
            answer = process.stdout.readline().strip() if ready else b""
        except OSError:
            answer = b""
        if not answer:  # it hangs or has died
            self._end()
            raise PatternTooSlowError
        return answer

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:  # its last input is lost
                    pass
