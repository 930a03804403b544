"""The Fleet Protocol: something that runs worker processes, somewhere."""

from collections.abc import Callable
from typing import Protocol

import msgspec

from gen_orchestrator.domain.redaction import Redactor


class WorkerSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A worker to start. `folder` holds the release's source, `manifest` its baked manifest, `python` is what runs it; or `image` has it
    all, and the three are empty. `gpu` is a device number or empty.
    `variables` are the project's own (`[env]`), which give way to all others.
    `scheduler_addr` is host:port, several of them with commas between. Told to end, it may go on with its runs for `drain_s`."""

    worker_id: str
    release_id: str
    owner: str
    token: str
    scheduler_addr: str
    folder: str = ""
    manifest: str = ""
    python: str = ""
    image: str = ""
    drain_s: float
    gpu: str = ""
    env: dict[str, str] = {}
    variables: dict[str, str] = {}


OnExit = Callable[[str, int], None]  # worker id, exit status


class Secrets(Protocol):
    """Of releases: what their workers' environment holds that nobody may see."""

    def environment(self, release_id: str) -> dict[str, str]: ...

    def missing(self, release_id: str) -> str:
        """Why no worker can be started yet, for people; else empty."""
        ...

    def redactor(self, release_id: str) -> Redactor: ...


class Fleet(Protocol):
    """Starts and stops workers, and says when one has ended. It never sees a run."""

    async def start(self, spec: WorkerSpec, on_exit: OnExit) -> None:
        """Start a worker; `OSError` when it cannot be started. `on_exit` is called once, on the loop."""
        ...

    async def stop(self, worker_id: str, grace_s: float) -> None:
        """Ask a worker to end (it drains), and end it and all that it has started after `grace_s`, at once where that is 0."""
        ...

    def log_of(self, worker_id: str) -> bytes:
        """The last lines that a worker wrote, also after its end."""
        ...

    def log_from(self, worker_id: str, offset: int, most: int) -> bytes | None:
        """At most so many bytes of what a worker wrote, from `offset` on; None where it has no log here. Blocking."""
        ...

    def log_begin(self, worker_id: str) -> int:
        """The place of the first byte that is kept of what a worker wrote. Blocking."""
        ...

    def log_end(self, worker_id: str) -> int:
        """How many bytes a worker has written; 0 without a log. Blocking."""
        ...

    async def close(self, grace_s: float) -> None:
        """Stop all."""
        ...
