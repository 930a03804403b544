"""What C code, child processes and `os.write` say on descriptors 1 and 2, as lines of JSON among the others (`cozyctl dev --json`).

    descriptors 1 and 2 --pipe--> a process of this module --a line of JSON for each line--> the real stderr <--lines of the log-- ours

A process reads the pipe and not a thread: code in C may write while it holds Python's lock, and would wait for ever on a full pipe for a
thread that needs that lock to empty it. It ends when the last of those who may write has ended.
"""

import os
import signal
import subprocess
import sys
from typing import BinaryIO, TextIO

from gen_worker.log import Log

MAX_LINE = 10_000


def divert() -> TextIO:
    """Have all that is written to descriptors 1 and 2 from now on shown as lines of JSON on stderr. Returns that stderr, for a log."""
    try:
        own = os.dup(2)
    except OSError:  # without a stderr nobody reads anything
        return sys.stderr
    reads, writes = os.pipe()
    # In a session of its own: Ctrl-C on the terminal is for us, and what we say as we end is to be read still.
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
    return os.fdopen(own, "w", encoding="utf-8", errors="backslashreplace")


def copy_lines(source: BinaryIO, log: Log) -> None:
    """Each line of `source` as a line of the log, until it ends."""
    while line := source.readline(MAX_LINE):
        log.info("output", message=line.removesuffix(b"\n").decode("utf-8", "replace"))


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    copy_lines(sys.stdin.buffer, Log(sys.stderr, as_json=True))
