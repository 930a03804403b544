"""Shows a run of the platform on the terminal of its caller or watcher: progress, text, and how it ended."""

from collections.abc import Callable
from typing import Any, Self

import msgspec

from gen_orchestrator.cli.waiting import Waiting
from gen_worker import events
from gen_worker.cli.live import LiveRun
from gen_worker.cli.output import stdout_of
from gen_worker.client import GatewayError
from gen_worker.events import RunEvent
from gen_worker.texts import counted

NOTICED_S = 1.0  # a shorter pause is not worth a line
_TYPES = {"progress": events.PROGRESS, "log": events.LOG}


class RunView:
    """Shows the events of one run, and why it waits; `deltas` are the items of its stream. When quiet, it only collects
    them.

    `look` fetches the run's current state.
    """

    def __init__(self, name: str, *, quiet: bool, look: Callable[[str], dict[str, Any]]) -> None:
        self.run_id = ""
        self.deltas: list[Any] = []
        self._name = name
        self._quiet = quiet
        self._is_starting = False
        self._live = LiveRun(name, stdout_of(), quiet=quiet)
        self._waiting = Waiting(look, self._note, self._live.stage)

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._waiting.end()
        self._live.__exit__(*exc_info)

    def show(self, name: str, data: Any) -> None:
        """Process an event. `BrokenPipeError` when the reader of the items has gone."""
        self._waiting.end()
        match name:
            case "output":
                self.deltas.append(data)
                if not self._quiet:
                    self._live.print_item(data)
            case "status":
                self.run_id = data["run_id"]
                again = f", attempt {data['attempt']}" if data.get("attempt", 0) > 1 and data["status"] != "queued" else ""
                if data["status"] == "starting" and not again:  # a worker has it; where that takes time, its model says so
                    self._live.stage(data["status"])
                else:
                    self._live.step(f"{data['status']}{again}")
                if data["status"] == "queued" and not self._quiet:
                    self._waiting.begin(self.run_id)
            case "restart":
                self.deltas.clear()  # items of a lost attempt do not count
                self._note(f"restarted, attempt {data['attempt']}")
            case "snapshot":
                self._note(f"the platform no longer keeps {counted(data['missed'], 'earlier event')}")
            case "progress" | "log" if isinstance(data, dict):
                self._live.show(RunEvent(_TYPES[name], msgspec.Raw(msgspec.json.encode(data))))
            case "done":
                self._live.end_line()

    def paused(self, seconds: float, because: GatewayError) -> None:
        """The platform will be asked again later: it did not answer, or has no room for this run."""
        if because.code == "not_ready":  # asked every second, and said once
            if not self._is_starting:
                self._note(f"{because.detail.partition(';')[0]}; waiting until it serves")
            self._is_starting = True
        elif seconds >= NOTICED_S:
            self._note(f"{because.detail}. Trying again in {seconds:.0f} s")

    def _note(self, text: str) -> None:
        if not self._quiet:
            self._live.note(f"{self._name}: {text}")
