"""A run of the platform as it goes, on the terminal of whoever started or watches it: progress, text, and how it ended."""

import time
from collections.abc import Iterator
from typing import Any, Self

import msgspec

from gen_orchestrator.cli.api import Api, ApiError
from gen_worker import events
from gen_worker.cli.live import LiveRun
from gen_worker.cli.output import say, stdout_of
from gen_worker.events import RunEvent

MAX_RESUMES = 10  # in a row, without an event between them
FIRST_PAUSE_S, MAX_PAUSE_S = 0.1, 5.0
_TYPES = {"progress": events.PROGRESS, "log": events.LOG}


class CutError(Exception):
    """The stream was cut and could not be taken up again; the run itself goes on."""


def events_of(api: Api, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Iterator[tuple[str, Any]]:
    """Name and data of a run's events, until `done`. A stream that is cut is taken up where it was: a POST by its idempotency key.

    `ApiError` where it never began, `CutError` where it could not be taken up again.
    """
    last_id, failures, began = "", 0, False
    while True:
        resumed = {"last-event-id": last_id} if last_id else {}
        try:
            for ident, name, data in api.events(method, path, body, {**(headers or {}), **resumed}):
                began, failures = True, 0
                last_id = ident or last_id
                yield name, data
                if name == "done":
                    return
        except ApiError as exc:
            if exc.code != "unreachable" or not began:
                raise
        failures += 1
        if failures > MAX_RESUMES:
            raise CutError(f"the stream was cut and could not be taken up again in {failures} tries")
        time.sleep(min(MAX_PAUSE_S, FIRST_PAUSE_S * 2**failures))


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
