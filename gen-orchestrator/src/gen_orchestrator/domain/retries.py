"""What follows when an attempt ends without success: the end of the run, or another try, and when."""

from random import Random
from typing import Final

import msgspec

from gen_orchestrator.domain.runs import Run, RunError

BASE_DELAY_S: Final = 1.0
MAX_DELAY_S: Final = 60.0
REFUSED_DELAY_S: Final = 0.05
MAX_LOST_WORKERS: Final = 2
REFUSAL: Final = "worker busy"  # what a worker says of a run that it did not begin


class Again(msgspec.Struct, frozen=True):
    """Try again in `delay_s`. `executed` and `lost` are what the store counts."""

    delay_s: float
    executed: bool = True
    lost: bool = False


class GiveUp(msgspec.Struct, frozen=True):
    error: RunError


def after_failure(run: Run, error: RunError, random: Random) -> Again | GiveUp:
    """A worker answered with a failure. Only what may pass is tried again; a refusal costs no try."""
    if not error.retryable:
        return GiveUp(error)
    if error.message == REFUSAL:
        return Again(REFUSED_DELAY_S * (0.5 + random.random()), executed=False)
    tries = run.executions + 1
    if tries >= run.max_attempts:
        return GiveUp(error)
    return Again(random.uniform(0, min(MAX_DELAY_S, BASE_DELAY_S * 2**tries)))


def after_loss(run: Run, worker_id: str) -> Again | GiveUp:
    """The worker of a run is gone. A run that has cost two workers is not given a third."""
    if run.lost_workers + 1 >= MAX_LOST_WORKERS:
        text = f"the worker was lost {run.lost_workers + 1} times while it ran this; it is not tried again"
        return GiveUp(RunError(error_type="fatal", code="worker_lost", message=text, detail=f"last worker: {worker_id}"))
    return Again(0.0, lost=True)
