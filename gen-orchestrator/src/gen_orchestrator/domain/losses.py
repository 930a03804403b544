"""A worker died with runs on it: which runs continue, which are suspected, and which one is judged to have killed it. Pure.

    suspicion:  +1  for a worker that was lost with other runs on it
                +2  for one that ran this alone

With a suspicion of 2 and two lost workers, a run is isolated: it gets a worker to itself, so it cannot kill other runs and they cannot kill
it. If a suspected run loses a fresh worker that ran nothing else, the run is given up. So a run is never given up for what other runs did.
The first loss costs only an attempt, because most workers die for other reasons (the kernel's memory killer, an operator, a machine), and
isolation makes other runs wait.

Lost workers do not count as attempts of `max_attempts`. `MAX_LOST_WORKERS` limits them, whatever the reason.
"""

from enum import Enum
from typing import Final

import msgspec

from gen_orchestrator.domain.runs import Run, RunError

SUSPECTED: Final = 2
MAX_LOST_WORKERS: Final = 10


class Loss(Enum):
    """What is known about a lost worker, for one of its runs."""

    FRESH = "it ran this alone, and nothing before"
    ALONE = "it ran this alone, and others before"
    SHARED = "it ran others too, or nobody knows"
    OURS = "this program ended it, or ended itself"


class Lost(msgspec.Struct, frozen=True):
    """The run goes on; `suspicion` is added to its suspicion."""

    suspicion: int


def is_kept_apart(run: Run) -> bool:
    """Whether the run gets a worker to itself."""
    return run.suspicion >= SUSPECTED and run.lost_workers >= 2


def after_loss(run: Run, worker_id: str, loss: Loss) -> Lost | RunError:
    """The consequence for a run whose worker is gone: another try, or its final error."""
    count = run.lost_workers + 1
    if (loss is Loss.FRESH and run.suspicion >= SUSPECTED) or count >= MAX_LOST_WORKERS:
        alone = ", the last time with nothing else on that worker" if loss is Loss.FRESH else ""
        text = f"the worker was lost {count} times while it ran this{alone}; it is not tried again"
        return RunError(error_type="fatal", code="worker_lost", message=text, detail=f"last worker: {worker_id}")
    return Lost({Loss.OURS: 0, Loss.SHARED: 1}.get(loss, SUSPECTED))
