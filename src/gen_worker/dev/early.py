"""Lets the thread that ran a function answer its caller."""

import time
from collections.abc import Callable

from gen_worker.dev import answers
from gen_worker.dev.runs import DevRun, EarlyRecord
from gen_worker.events import RunEvent
from gen_worker.http.asgi import JSON, answer_fields
from gen_worker.http.direct import DirectAnswer
from gen_worker.outcome import Outcome


class CallersAnswer:
    """The path to the one caller who waits for a run (`EarlyAnswer`)."""

    def __init__(self, run: DevRun, direct: DirectAnswer) -> None:
        self._run = run
        self._direct = direct

    def answer(self, outcome: Outcome, ending: list[RunEvent], before: Callable[[], None]) -> None:
        run = self._run
        if run.files:  # the caller may want the file itself
            return
        early = EarlyRecord(run.log.json_with(ending), time.time())
        body = answers.early_answer(run, outcome, early)

        def kept() -> None:
            run.early = early
            before()

        self._direct.write(200, answer_fields(body, JSON), body, kept)
