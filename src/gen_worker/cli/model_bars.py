"""Shows models being fetched or loaded: bars on a terminal, lines elsewhere."""

import os
import sys
from typing import Any, Self

from gen_worker.cli.output import say
from gen_worker.contract.progress import ModelProgress


class ModelBars:
    """Shows each model's phase, bytes, rate and remaining time on stderr."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._bars: Any = None
        self._tasks: dict[str, Any] = {}
        self._said: dict[str, tuple[str, int]] = {}

    def __enter__(self) -> Self:
        if not self._quiet and sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
            from rich.console import Console
            from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

            columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
            self._bars = Progress(*columns, console=Console(stderr=True))
            self._bars.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._bars is not None:
            self._bars.stop()

    def show(self, now: ModelProgress) -> None:
        """Show the progress of a model."""
        if self._quiet or now.phase == "waiting":
            return
        if self._bars is None:
            self._line(now)
            return
        if now.model_id not in self._tasks:
            self._tasks[now.model_id] = self._bars.add_task(now.model_id, total=None)
        text = f"{now.model_id} {now.phase}"
        self._bars.update(self._tasks[now.model_id], description=text, completed=now.bytes_done, total=now.bytes_total or None)

    def _line(self, now: ModelProgress) -> None:
        tenth = int(now.fraction * 10)
        if self._said.get(now.model_id) == (now.phase, tenth):
            return
        self._said[now.model_id] = (now.phase, tenth)
        say(f"{now.model_id}: {now.describe()}")
