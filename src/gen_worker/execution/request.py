"""What a caller asks for with a run, and what it is told."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import msgspec

from gen_worker.authoring.invoking import Children
from gen_worker.content.listing import Listing
from gen_worker.events import RunEvent
from gen_worker.execution.encoding import Encoding
from gen_worker.execution.handler_socket import HandlerSocket
from gen_worker.files.file_api import FileApi
from gen_worker.outcome import Outcome


class RunRequest(msgspec.Struct, frozen=True):
    """What a caller asks for.

    `encoding` applies to the payload and the output; deltas are always JSON. `uploads` maps asset refs of this payload
    to files that came with the request; others are fetched from `file_api`. `max_output_bytes` is the most that the
    connection to the caller can carry; 0 means no limit. `traceparent` is the W3C Trace Context of the run. A realtime
    session has a `socket` instead of a payload. `injected` are refs of the models for its parameters, in order, when
    the caller chooses them. `attempt` counts from 1 how often the run was given to a worker. `children` runs the
    functions that this one calls.
    """

    run_id: str
    payload: bytes
    encoding: Encoding = "json"
    timeout_ms: int = 0
    owner: str | None = None
    invoker_id: str | None = None
    required_models: tuple[str, ...] = ()
    resolved_models: Mapping[str, Any] | None = None  # in the form that the function sees
    listings: Mapping[str, Listing] = {}
    uploads: Mapping[str, Path] = msgspec.field(default_factory=dict)
    file_api: FileApi | None = None
    max_output_bytes: int = 0
    traceparent: str | None = None
    attempt: int = 1
    socket: HandlerSocket | None = None
    injected: tuple[str, ...] | None = None
    children: Children | None = None


class RunSink(Protocol):
    """Takes what a run reports, on the executor's loop. While `ready` is False the run's stream is paused until
    `on_ready` is called back.
    """

    @property
    def ready(self) -> bool: ...

    def emit_all(self, batch: list[RunEvent]) -> None: ...

    def on_ready(self, callback: Callable[[], None]) -> None: ...


class RunHooks(RunSink, Protocol):
    """What the caller of a run is told, on the executor's loop: events, then `ended` once and `released` once.

    No event comes after `ended`. `released` comes in the same turn of the loop or later: if the author's code goes on
    after its run was cancelled or timed out, its slot and files are free only when it returns. An implementation should
    not raise; if it does, the error is logged and everything else still happens.
    """

    def ended(self, outcome: Outcome) -> None: ...

    def released(self) -> None: ...
