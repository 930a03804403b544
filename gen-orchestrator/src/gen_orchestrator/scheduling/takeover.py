"""What a new leader takes up: the open runs that an earlier one left in the store."""

from collections.abc import Callable, Iterable, Mapping, Sequence

from gen_orchestrator.domain.runs import Run, RunState
from gen_orchestrator.domain.settings import FunctionSettings
from gen_orchestrator.scheduling.dispatcher import Dispatcher
from gen_orchestrator.scheduling.open_run import OpenRun
from gen_orchestrator.store.base import EventChunk
from gen_worker.log import Log


def take_up(
    dispatcher: Dispatcher,
    settings_of: Callable[[str, str], FunctionSettings],
    open_runs: Iterable[Run],
    events: Mapping[str, Sequence[EventChunk]],
    log: Log,
) -> list[OpenRun]:
    """Give every open run to the dispatcher. Returns those that a worker may still have: they wait for it to register.

    `settings_of` takes release and function, and raises `LookupError` for a release that is gone. `events` has the stored events by run id.
    """
    taken = 0
    with_workers = []
    for run in open_runs:
        try:
            settings = settings_of(run.release_id, run.function)
        except LookupError:
            settings = FunctionSettings()
        lane = dispatcher.lanes.lane(run.release_id, run.function, settings)
        try:
            open_run = dispatcher.restore(run, lane, events.get(run.id, ()))
        except Exception as exc:  # noqa: BLE001 - what a damaged row holds must not keep the others from their leader
            log.error("run.not_taken_up", run_id=run.id, error=repr(exc))
            continue
        taken += 1
        if run.state is RunState.LEASED and open_run.session is None:
            with_workers.append(open_run)
    if taken:
        log.info("leader.took_up", runs=taken, with_workers=len(with_workers))
    return with_workers
