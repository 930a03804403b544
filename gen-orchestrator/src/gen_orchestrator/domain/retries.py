"""What follows when an attempt ends without success: the end of the run, or another try, and when."""

from random import Random
from typing import Final

import msgspec

from gen_orchestrator.domain import losses
from gen_orchestrator.domain.losses import Loss
from gen_orchestrator.domain.runs import Run, RunError

BASE_DELAY_S: Final = 1.0
MAX_DELAY_S: Final = 60.0
REFUSED_DELAY_S: Final = 0.05
REFUSAL: Final = "worker busy"  # a worker's text for a run that it did not begin


class Again(msgspec.Struct, frozen=True):
    """Try again after `delay_s`, because of `error` if the worker sent one. The store adds `executed`, `lost` and
    `suspicion` (see `losses`).
    """

    delay_s: float
    executed: bool = True
    lost: bool = False
    suspicion: int = 0
    error: RunError | None = None


class GiveUp(msgspec.Struct, frozen=True):
    error: RunError


def after_failure(run: Run, error: RunError, random: Random) -> Again | GiveUp:
    """A worker answered with a failure. Only temporary failures are retried; a refusal does not count as a try."""
    if not error.retryable:
        return GiveUp(error)
    if error.message == REFUSAL:
        return Again(REFUSED_DELAY_S * (0.5 + random.random()), executed=False)
    tries = run.executions - run.lost_workers + 1  # lost workers do not count as tries of the run
    if tries >= run.max_attempts:
        return GiveUp(error)
    return Again(random.uniform(0, min(MAX_DELAY_S, BASE_DELAY_S * 2**tries)), error=error)


def after_loss(run: Run, worker_id: str, loss: Loss) -> Again | GiveUp:
    """The worker of a run is gone. The run is tried again at once, unless it is judged to have killed the worker (see `losses`)."""
    what = losses.after_loss(run, worker_id, loss)
    return GiveUp(what) if isinstance(what, RunError) else Again(0.0, lost=True, suspicion=what.suspicion)
