"""A run of the platform as it goes, on the terminal of whoever started or watches it: progress, text, and how it ended."""

from typing import Any, Self

import msgspec

from gen_worker import events
from gen_worker.cli.live import LiveRun
from gen_worker.cli.output import say, stdout_of
from gen_worker.events import RunEvent

_TYPES = {"progress": events.PROGRESS, "log": events.LOG}


class RunView:
    """Shows the events of one run; `deltas` are the items of its stream. Quiet, it only gathers them."""

    def __init__(self, name: str, *, quiet: bool) -> None:
        self.run_id = ""
        self.deltas: list[Any] = []
        self._name = name
        self._quiet = quiet
        self._live = LiveRun(name, stdout_of(), quiet=quiet)

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._live.__exit__(*exc_info)

    def show(self, name: str, data: Any) -> None:
        """Take an event. `BrokenPipeError` when nobody reads the items any more."""
        match name:
            case "output":
                self.deltas.append(data)
                if not self._quiet:
                    self._live.print_item(data)
            case "status":
                self.run_id = data["run_id"]
                self._live.step(data["status"])
            case "restart":
                self.deltas.clear()  # what a lost attempt gave does not count
                self._note(f"{self._name}: begins again, attempt {data['attempt']}")
            case "snapshot":
                self._note(f"{self._name}: {data['missed']} events are not kept any more")
            case "progress" | "log" if isinstance(data, dict):
                self._live.show(RunEvent(_TYPES[name], msgspec.Raw(msgspec.json.encode(data))))
            case "done":
                self._live.end_line()

    def _note(self, text: str) -> None:
        if not self._quiet:
            self._live.end_line()
            say(text)
