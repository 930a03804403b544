"""The Fleet Protocol: something that runs worker processes, somewhere."""

from collections.abc import Callable
from typing import Protocol

import msgspec

from gen_orchestrator.domain.redaction import Redactor


class WorkerSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A worker to start. `folder` contains the release's source, `manifest` its baked manifest, and `python` is its
    interpreter; or `image` contains everything, and the three are empty. `gpu` is a device number or empty. `variables`
    are the project's own (`[env]`); all others override them. `scheduler_addr` is host:port, or several separated by
    commas. When told to end, the worker may continue its runs for `drain_s`.
    """

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
    """Secrets of releases: the part of a worker's environment that nobody may see."""

    def environment(self, release_id: str) -> dict[str, str]: ...

    def missing(self, release_id: str) -> str:
        """Why no worker can be started yet, as text for people; otherwise empty."""
        ...

    def redactor(self, release_id: str) -> Redactor: ...


class Fleet(Protocol):
    """Starts and stops workers, and reports when one has ended. It does not deal with runs."""

    async def start(self, spec: WorkerSpec, on_exit: OnExit) -> None:
        """Start a worker; `OSError` when that fails. `on_exit` is called once, on the loop."""
        ...

    async def stop(self, worker_id: str, grace_s: float) -> None:
        """Ask a worker to end (it drains); after `grace_s`, kill it with everything that it has started. 0: kill it at once."""
        ...

    def log_of(self, worker_id: str) -> bytes:
        """The last lines written by a worker, even after its end."""
        ...

    def log_from(self, worker_id: str, offset: int, most: int) -> bytes | None:
        """At most `most` bytes of what a worker wrote, starting at `offset`; None when it has no log here. Blocking."""
        ...

    def log_begin(self, worker_id: str) -> int:
        """The offset of the first kept byte of a worker's log. Blocking."""
        ...

    def log_end(self, worker_id: str) -> int:
        """How many bytes a worker has written; 0 without a log. Blocking."""
        ...

    async def close(self, grace_s: float) -> None:
        """Stop all."""
        ...
