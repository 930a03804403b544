"""A run as it happens: a progress bar on a terminal, plain lines elsewhere, nothing when quiet."""

import os
import sys
from typing import Any, Self

import msgspec

from gen_worker import events
from gen_worker.cli.output import say
from gen_worker.content.progress import ModelProgress
from gen_worker.events import RunEvent

_STEPS = {
    events.RESOLVE_STARTED: "finding the model",
    events.LOAD_STARTED: "loading the model",
    events.INFERENCE_STARTED: "running",
}


class LiveRun:
    """Shows one run on stderr; stream items go to stdout."""

    def __init__(self, function: str, *, quiet: bool = False) -> None:
        self._function = function
        self._quiet = quiet
        self._stdout = sys.__stdout__
        self._bar: Any = None
        self._task: Any = None
        self._last = ""
        self._shown = ("", 0)  # phase and tenths of a model on its way

    def __enter__(self) -> Self:
        if not self._quiet and sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
            from rich.console import Console
            from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

            columns = (
                SpinnerColumn(),
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.fields[stage]}"),
                TimeElapsedColumn(),
            )
            self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self._bar.start()
            self._task = self._bar.add_task(self._function, total=None, stage="starting")
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def show(self, event: RunEvent) -> None:
        """Show what an event means, if anything."""
        if self._quiet:
            return
        if event.event_type in _STEPS:
            self._step(_STEPS[event.event_type])
        elif event.event_type == events.MODEL_PROGRESS:
            self._model(event.payload)
        elif event.event_type in (events.PROGRESS, events.LOG):
            payload = msgspec.json.decode(event.payload)
            if event.event_type == events.LOG:
                self._line(f"{payload.get('level', 'info')}: {payload.get('message', '')}")
            else:
                self._progress(payload.get("progress"), str(payload.get("stage", "")))

    def print_delta(self, delta: bytes) -> None:
        """One item of a stream, as a line of JSON on stdout."""
        if self._stdout is not None:
            self._stdout.write(delta.decode() + "\n")
            self._stdout.flush()

    def _model(self, now: ModelProgress) -> None:
        if self._bar is not None:
            total, completed = (1.0, now.fraction) if now.bytes_total else (None, 0)
            self._bar.update(self._task, total=total, completed=completed, stage=now.describe())
        elif (now.phase, int(now.fraction * 10)) != self._shown:
            self._shown = (now.phase, int(now.fraction * 10))
            self._line(f"{self._function}: {now.model_id} {now.describe()}")

    def _step(self, text: str) -> None:
        if self._bar is not None:
            self._bar.update(self._task, stage=text)
        else:
            self._line(f"{self._function}: {text}")

    def _progress(self, progress: Any, stage: str) -> None:
        if not isinstance(progress, (int, float)):
            return
        if self._bar is not None:
            self._bar.update(self._task, total=1.0, completed=min(1.0, max(0.0, progress)), stage=stage)
        else:
            self._line(f"{self._function}: {progress:.0%} {stage}".rstrip())

    def _line(self, text: str) -> None:
        if text != self._last:
            self._last = text
            if self._bar is not None:
                self._bar.console.print(text, markup=False)
            else:
                say(text)
