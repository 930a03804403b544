# ruff: noqa: PTH123, PTH208 - pathlib would double what this program weighs
"""Kills processes that a worker's code started and left behind, found by their session or by a mark in their environment.

    the platform --stdin: "+ MARK SESSION STAYS" and "- MARK", a line each--> this program, in a session of its own
    end of stdin: the platform is gone, by whatever signal. What its workers had started is ended with them; workers that stay
    (other nodes lead them now) are waited for first.

The kernel kills a worker when its parent dies, but not the worker's children. A child that left the worker's session (`setsid`, a daemon)
still has its original environment. This module imports only the standard library: as a program it runs beside the platform for all of its
life, and should need little memory.
"""

import os
import signal
import sys
import time
from collections.abc import Iterable, Iterator

MARK_NAME = "GEN_ORCHESTRATOR_WORKER"
ROUNDS = 200  # a process that starts during one round is found in the next
PAUSE_S = 0.02


def end_all(marks: Iterable[str], sessions: Iterable[int]) -> int:
    """Kill all processes of these workers, and those that they start meanwhile; returns their number. Blocking."""
    wanted = {f"{MARK_NAME}={mark}".encode() for mark in marks}
    numbers = set(sessions)
    ended: set[int] = set()
    for _ in range(ROUNDS):
        found = [pid for pid in _processes() if _is_one(pid, wanted, numbers)]
        if not found:
            break
        for pid in found:
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                continue
            ended.add(pid)
        time.sleep(PAUSE_S)
    return len(ended)


def _processes() -> Iterator[int]:
    try:
        names = os.listdir("/proc")
    except OSError:
        return iter(())
    return (int(name) for name in names if name.isdigit() and int(name) != os.getpid())


def _is_one(pid: int, wanted: set[bytes], sessions: set[int]) -> bool:
    """Whether a process belongs to these workers. A dead one that was not waited for does not count."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            state, _, group, session = file.read().rpartition(b")")[2].split()[:4]
        if state in (b"Z", b"X"):
            return False
        if int(group) in sessions or int(session) in sessions:
            return True
        with open(f"/proc/{pid}/environ", "rb") as file:
            return not wanted.isdisjoint(file.read().split(b"\0"))
    except (OSError, ValueError):  # it is gone, or another user's
        return False


def _is_there(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    except OSError:
        return False


def main() -> None:
    """Read the list of workers until the platform is gone, then kill what they left."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # these signals are for the platform; we end after it
    workers: dict[str, tuple[int, bool]] = {}
    for line in sys.stdin:
        kind, mark, *more = line.split()
        if kind == "+":
            workers[mark] = (int(more[0]), more[1] == "1")
        else:
            workers.pop(mark, None)
    gone = {mark: session for mark, (session, stays) in workers.items() if not stays}
    end_all(gone, gone.values())
    rest = {mark: session for mark, (session, stays) in workers.items() if stays}
    while rest:
        over = {mark: session for mark, session in rest.items() if not _is_there(session)}
        end_all(over, over.values())
        rest = {mark: session for mark, session in rest.items() if mark not in over}
        time.sleep(0.2)


if __name__ == "__main__":
    main()
