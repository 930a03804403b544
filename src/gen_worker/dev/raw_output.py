"""Turns what C code, child processes and `os.write` print on descriptors 1 and 2 into lines of JSON (`cozyctl dev
--json`).

    descriptors 1 and 2 --pipe--> a process of this module --a line of JSON for each line--> the real stderr <--lines of the log-- ours

A process reads the pipe, not a thread. C code may write while it holds Python's lock. On a full pipe it would wait for
ever for a thread that needs that lock to empty it. The process ends when the last writer has ended.
"""

import os
import signal
import subprocess
import sys
from typing import BinaryIO, TextIO

from gen_worker.log import Log
from gen_worker.log_pipe import guard_standard_streams, guarded

MAX_LINE = 10_000


def divert() -> TextIO:
    """From now on, show everything written to descriptors 1 and 2 as lines of JSON on stderr. Returns the real stderr, for a log."""
    try:
        own = os.dup(2)
    except OSError:  # without a stderr nobody reads anything
        return sys.stderr
    reads, writes = os.pipe()
    # In a session of its own: Ctrl-C on the terminal is for us, and what we print while ending must still be read.
    subprocess.Popen(
        [sys.executable, "-P", "-m", "gen_worker.dev.raw_output"],
        stdin=reads,
        stdout=subprocess.DEVNULL,
        stderr=own,
        start_new_session=True,
    )
    os.dup2(writes, 1)
    os.dup2(writes, 2)
    os.close(writes)
    os.close(reads)
    return guarded(os.fdopen(own, "w", encoding="utf-8", errors="backslashreplace"), Log(as_json=True).lost_line)


def copy_lines(source: BinaryIO, log: Log) -> None:
    """Write each line of `source` as a line of the log, until it ends."""
    while line := source.readline(MAX_LINE):
        log.info("output", message=line.removesuffix(b"\n").decode("utf-8", "replace"))


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    guard_standard_streams(Log(as_json=True).lost_line)  # programs that write to the pipe do not wait for the reader of our stderr either
    copy_lines(sys.stdin.buffer, Log(as_json=True))
