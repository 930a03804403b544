"""What callers see: runs, their events, files."""

from typing import Any, Literal

import msgspec

from gen_worker.contract.run import TERMINAL
from gen_worker.errors import FieldError

EventName = Literal["status", "progress", "output", "log", "metric", "error", "custom", "restart", "snapshot", "done"]


class RunProblem(msgspec.Struct, frozen=True, kw_only=True):
    """Why a run ended without a result. `code` is a stable word, `status` the corresponding HTTP status."""

    code: str = "internal"
    detail: str = ""
    status: int = 500
    retryable: bool = False
    errors: tuple[FieldError, ...] = ()
    hint: str | None = None


class RunFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file in a run's output. `url` is a path on the server that made the run."""

    ref: str
    url: str = ""
    mime_type: str | None = None
    size_bytes: int | None = None
    sha256: str | None = None


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """The state of a run. `status`: `queued`, `starting`, `running`, then finally `succeeded`, `failed`, `canceled` or
    `expired`.

    `output` is plain Python values; None before the end, and for a function that streams (its items are events).
    `progress` is the last progress reported by the function. Times are RFC 3339 in UTC, `timings` milliseconds. Fields
    that a server does not send are empty.
    """

    id: str
    status: str
    function: str = ""
    owner: str = ""
    endpoint: str = ""
    tag: str = ""
    release_id: str = ""
    attempt: int = 1
    worker_id: str | None = None
    output: Any = None
    files: tuple[RunFile, ...] = ()
    error: RunProblem | None = None
    progress: Any = None
    warnings: tuple[FieldError, ...] = ()
    timings: dict[str, int] = {}
    routing: Any = None
    created_at: str | None = None
    started_at: str | None = None
    finished_at: str | None = None

    @property
    def finished(self) -> bool:
        """Whether it is over; then nothing changes any more."""
        return self.status in TERMINAL


class RunEvent(msgspec.Struct, frozen=True):
    """One event of a run. Streams resume after its `id`, which is empty for events that are sent to every new reader.
    `data` is plain Python values.

    `status`: `data` names the status. `progress`: `progress` from 0 to 1, perhaps `stage`. `output`: an item of a
    stream. `log`: `level`, `message`. `error`: a problem. `restart`: another attempt begins, items start over.
    `snapshot`: `missed` events are no longer kept. `done`: the run, and the last event.
    """

    id: str
    name: str
    data: Any
