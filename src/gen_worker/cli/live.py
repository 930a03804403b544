"""Shows a run's progress: a bar on a terminal, plain lines elsewhere, nothing when quiet."""

import logging
import os
import sys
from typing import Any, Self, TextIO

import msgspec

from gen_worker import events
from gen_worker.cli.output import say
from gen_worker.contract.progress import ModelProgress
from gen_worker.events import RunEvent
from gen_worker.project.stdout import Stdout

_STEPS = {
    events.RESOLVE_STARTED: "finding the model",
    events.LOAD_STARTED: "loading the model",
    events.INFERENCE_STARTED: "running",
}
# Audit events of a debugger that takes the terminal; see https://docs.python.org/3/library/audit_events.html
_DEBUGGERS = {"builtins.breakpoint", "pdb.Pdb"}


def _move_logging(old: TextIO, new: TextIO) -> list["logging.StreamHandler[TextIO]"]:
    """Print what libraries log above the bar: their handlers stored stderr when they were imported, and would write
    into the bar's line.
    """
    loggers = [logging.getLogger(), *(each for each in logging.root.manager.loggerDict.values() if isinstance(each, logging.Logger))]
    handlers = {handler: None for logger in loggers for handler in logger.handlers if isinstance(handler, logging.StreamHandler)}
    found = [handler for handler in handlers if handler.stream is old]
    for handler in found:
        handler.setStream(new)
    return found


class LiveRun:
    """Shows one run on stderr, and the items of its stream on stdout. `text_field`: the only field of its items, if that is text."""

    def __init__(self, function: str, stdout: Stdout, *, quiet: bool = False, text_field: str = "") -> None:
        self._function = function
        self._quiet = quiet
        self._stdout = stdout
        self._shared = stdout.isatty()  # stdout and stderr then appear on the same screen
        self._text_field = text_field
        self._streaming = False
        self._in_line = False  # a line of the stream was begun and not ended
        self._bar: Any = None
        self._moved: list[logging.StreamHandler[TextIO]] = []  # handlers that write to the bar's stream while it is shown
        self._task: Any = None
        self._last = ""
        self._shown = ("", 0)  # phase and tenths of a model being fetched or loaded

    def __enter__(self) -> Self:
        if not self._quiet and sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
            from rich.console import Console
            from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

            columns = (
                SpinnerColumn(),
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                TextColumn("{task.fields[stage]}", markup=False),
                TimeElapsedColumn(),
            )
            self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
            before = sys.stderr
            self._bar.start()
            self._moved = _move_logging(before, sys.stderr)
            self._task = self._bar.add_task(self._function, total=None, stage="starting")
            sys.addaudithook(self._on_audit)  # it stays for the rest of the process, which is this run's
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stop_bar()
        self._break_line()

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
                self._last = ""  # whoever logs a line twice means two
                self._line(f"{payload.get('level', 'info')}: {payload.get('message', '')}")
            else:
                self._progress(payload.get("progress"), str(payload.get("stage", "")))

    def print_delta(self, delta: bytes) -> None:
        """Print one item of a stream on stdout: text as it arrives, anything else as a line of JSON. `BrokenPipeError`
        when the reader has gone.
        """
        self._take_screen()
        if self._text_field:
            self._print_text(str(msgspec.json.decode(delta).get(self._text_field, "")))
        else:
            self._stdout.write(delta + b"\n")

    def print_item(self, item: Any) -> None:
        """Like `print_delta`, for an item of unknown type: an item with a single text field, named by the first such
        item, prints as text.
        """
        is_text = isinstance(item, dict) and len(item) == 1 and all(isinstance(value, str) for value in item.values())
        if is_text and not self._text_field:
            self._text_field = next(iter(item))
        if is_text and self._text_field in item:
            self._take_screen()
            self._print_text(item[self._text_field])
            return
        self._take_screen()
        self._break_line()
        self._stdout.write(msgspec.json.encode(item) + b"\n")

    def end_line(self) -> None:
        """End a started line, so that the next output on the same screen begins on its own line."""
        if self._shared:
            self._break_line()

    def step(self, text: str) -> None:
        """What the run is doing now, in a word or two."""
        if not self._quiet:
            self._step(text)

    def stage(self, text: str) -> None:
        """Like `step`, but only shown with a bar: it changes too often for lines."""
        bar = self._bar
        if bar is not None:
            bar.update(self._task, stage=text)

    def note(self, text: str) -> None:
        """Print a line above the bar."""
        if not self._quiet:
            self._line(text)

    def _take_screen(self) -> None:
        if self._shared:  # the items take the bar's place
            self._stop_bar()
            self._streaming = True

    def _print_text(self, text: str) -> None:
        if text:
            self._stdout.write(text.encode("utf-8", "replace"))
            self._in_line = not text.endswith("\n")

    def _break_line(self) -> None:
        if self._in_line:
            self._in_line = False
            self._stdout.write(b"\n")

    def _on_audit(self, event: str, arguments: object) -> None:
        if event in _DEBUGGERS:  # in the function's thread: a bar would be painted over the debugger's prompt
            self._stop_bar()

    def _stop_bar(self) -> None:
        bar, self._bar = self._bar, None
        if bar is not None:
            bar.stop()
            for handler in self._moved:
                handler.setStream(sys.stderr)

    def _model(self, now: ModelProgress) -> None:
        bar = self._bar
        if bar is not None:
            total, completed = (1.0, now.fraction) if now.bytes_total else (None, 0)
            bar.update(self._task, total=total, completed=completed, stage=now.describe())
        elif (now.phase, int(now.fraction * 10)) != self._shown:
            self._shown = (now.phase, int(now.fraction * 10))
            self._line(f"{self._function}: {now.model_id} {now.describe()}")

    def _step(self, text: str) -> None:
        if self._streaming:
            return
        bar = self._bar
        if bar is not None:
            bar.update(self._task, stage=text)
        else:
            self._line(f"{self._function}: {text}")

    def _progress(self, progress: Any, stage: str) -> None:
        if not isinstance(progress, (int, float)) or self._streaming:
            return
        bar = self._bar
        if bar is not None:
            bar.update(self._task, total=1.0, completed=min(1.0, max(0.0, progress)), stage=stage)
        else:
            self._line(f"{self._function}: {progress:.0%} {stage}".rstrip())

    def _line(self, text: str) -> None:
        """Print a line. A step, progress or note that was just told is not told again."""
        if text != self._last:
            self._last = text
            bar = self._bar
            if bar is not None:
                bar.console.print(text, markup=False)
            else:
                self.end_line()
                say(text)
