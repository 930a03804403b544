"""A separate program that searches texts for patterns, with a limit on processor time. It needs nothing but Python.

`pattern_process.py` starts it and talks to it. In: a line of JSON `[pattern, [text, ...], seconds]`. Out: a line with
the index of the first text that does not match the pattern, `-1` for none, `late` when the time was up.
"""

import json
import re
import signal
import sys


class _Late(Exception):  # noqa: N818
    pass


def _on_alarm(number: int, frame: object) -> None:
    raise _Late


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the worker handles Ctrl-C; it ends this program by closing its stdin
    signal.signal(signal.SIGPROF, _on_alarm)
    for line in sys.stdin.buffer:
        pattern, texts, seconds = json.loads(line)
        try:
            # `re` checks for signals while it backtracks, so this ends the search. In a worker it could not: there the
            # search runs in a thread and blocks all others.
            signal.setitimer(signal.ITIMER_PROF, seconds)
            search = re.compile(pattern).search
            answer = str(next((index for index, text in enumerate(texts) if search(text) is None), -1))
            signal.setitimer(signal.ITIMER_PROF, 0)
        except _Late:
            answer = "late"
        sys.stdout.write(answer + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
