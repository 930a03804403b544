"""The way from a worker's parts to its scheduler."""

from typing import Protocol

from gen_worker.wire.messages import Event, Single
from gen_worker.wire.outbox import Outbox


class Voice(Protocol):
    """The way to the scheduler."""

    @property
    def outbox(self) -> Outbox: ...

    @property
    def wants_few_events(self) -> bool: ...

    def say(self, message: Single) -> None: ...

    def say_event(self, event: Event) -> None: ...
