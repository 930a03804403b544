"""The operations that change the store: one value per change, collected into batches.

An operation is a compare-and-set on one run. A batch is one transaction, fenced by the leader's epoch: either the
writer still leads, and each operation has its own result, or nothing is written and `DeposedError` is raised.
"""

import msgspec

from gen_orchestrator.domain.receipts import NOTHING, Usage
from gen_orchestrator.domain.runs import Ending, Run
from gen_orchestrator.domain.webhooks import Delivery


class Accept(msgspec.Struct, frozen=True):
    """A new run, once per (owner, idempotency key) and once per id."""

    run: Run


class Lease(msgspec.Struct, frozen=True):
    run_id: str
    attempt: int
    worker_id: str
    at: float
    routing: bytes = b""


class Requeue(msgspec.Struct, frozen=True):
    run_id: str
    attempt: int
    not_before: float
    executed: bool
    lost: bool
    suspicion: int = 0
    used: Usage = NOTHING


class Finish(msgspec.Struct, frozen=True):
    """The end of a run, with the webhook delivery that follows from it, in the same transaction."""

    run_id: str
    attempt: int
    ending: Ending
    delivery: Delivery | None = None


class RequestCancel(msgspec.Struct, frozen=True):
    run_id: str


class AppendEvents(msgspec.Struct, frozen=True):
    """Events `first_seq` to `last_seq` of one attempt, as one JSON array of `Entry`.

    `instance_id` and `wire_seq` identify the worker process that reported the last of them, and its number for it, so
    that a new leader can drop what that process sends again. Written twice, they exist once.
    """

    run_id: str
    attempt: int
    first_seq: int
    last_seq: int
    events: bytes
    instance_id: str = ""
    wire_seq: int = 0


class AddDelivery(msgspec.Struct, frozen=True):
    """A webhook delivery to be made; once per id."""

    delivery: Delivery

    @property
    def run_id(self) -> str:
        return self.delivery.run_id


class RecordDelivery(msgspec.Struct, frozen=True):
    """The result of a pending delivery."""

    delivery: Delivery

    @property
    def run_id(self) -> str:
        return self.delivery.run_id


Op = Accept | Lease | Requeue | Finish | RequestCancel | AppendEvents | AddDelivery | RecordDelivery


class Done(msgspec.Struct, frozen=True):
    """It happened."""


class Refused(msgspec.Struct, frozen=True):
    """It did not happen; `run` is the stored state, None when there is no such run."""

    run: Run | None


Result = Done | Refused
DONE = Done()
