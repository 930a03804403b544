"""How a worker's parts send messages to the scheduler."""

from collections.abc import Iterable
from typing import Protocol

from gen_worker.wire.messages import Event, Single
from gen_worker.wire.outbox import Outbox


class Voice(Protocol):
    """Sends messages to the scheduler."""

    @property
    def outbox(self) -> Outbox: ...

    @property
    def wants_few_events(self) -> bool: ...

    def say(self, message: Single) -> None: ...

    def say_event(self, event: Event) -> None: ...

    def say_events(self, events: Iterable[Event]) -> None: ...
