"""A program of its own: searches texts for patterns, with a limit on the time of its processor. It needs nothing but Python.

`pattern_process.py` starts it and speaks with it: a line of JSON `[pattern, [text, ...], seconds]` in, a line out: the index of the first
text that does not hold the pattern, `-1` for none, `late` when the time was up.
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
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the worker's affair; it ends us by closing our stdin
    signal.signal(signal.SIGPROF, _on_alarm)
    for line in sys.stdin.buffer:
        pattern, texts, seconds = json.loads(line)
        try:
            # `re` looks for signals as it backtracks, so this ends it. In a worker it would end nothing: there it runs in threads, and
            # holds all of them up.
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
