"""Handles workers of plain protocol 1.0 that reconnect: they lose messages with a stream, and report neither which runs
they have nor what was lost.

    back -> interrupt its runs that stream: deltas may be missing, so their next result, whatever it says, leads to another attempt
         -> after it has sent what had collected (SETTLE_S): send the commands of its runs again
              it has the run:     it refuses the second command (`duplicate_run_id`) and continues; its result counts
              it does not (the result was lost with the stream): it executes the run again

Without this, a run whose result was lost would stay with its worker forever. Our own workers do not need it: they keep
unconfirmed messages.
"""

from collections.abc import Callable

from gen_orchestrator.scheduling.open_run import OpenRun
from gen_orchestrator.scheduling.pool import Worker
from gen_worker.wire.messages import InterruptRun

SETTLE_S = 2.0  # a published worker immediately sends what has collected while the connection was down


def is_plain(worker: Worker) -> bool:
    """Whether it speaks protocol 1.0 without our extensions."""
    return not worker.instance_id


def doubt(worker: Worker, now_s: float) -> None:
    """A plain worker has opened a stream; it was given these runs on an earlier one."""
    worker.doubtful = set(worker.runs)
    worker.doubtful_since_s = now_s
    streaming = {schema.name for schema in worker.resources.function_schemas if schema.incremental_output}
    for open_run in worker.runs.values():
        if open_run.function in streaming and worker.link is not None:
            open_run.gapped = True
            worker.link.send(InterruptRun(open_run.id))


def settle(worker: Worker, now_s: float, repeat: Callable[[OpenRun], None]) -> None:
    """Send a plain worker the runs again that it may have lost, after it had time to report them itself."""
    if worker.doubtful and worker.link is not None and now_s - worker.doubtful_since_s > SETTLE_S:
        doubtful, worker.doubtful = worker.doubtful, set()
        for open_run in [run for run in worker.runs.values() if run.id in doubtful]:
            repeat(open_run)
