"""A worker as a program: signals and event loop."""

import asyncio
import threading
from collections.abc import Callable

from gen_worker import event_loop
from gen_worker.interpreter import TURNS, settle_interpreter
from gen_worker.leaving import leave_forks_alone, stop_signals
from gen_worker.log import Log
from gen_worker.runtime.config import WorkerConfig
from gen_worker.runtime.startup import Startup
from gen_worker.runtime.worker import WireWorker


def run_until_stopped(
    config: WorkerConfig,
    startup: Startup,
    log: Log,
    on_built: Callable[[WireWorker], None] = lambda worker: None,
    on_ended: Callable[[WireWorker], None] = lambda worker: None,
) -> None:
    """Run a worker in this thread until a signal or `WireWorker.stop` ends it. `on_ended` is called when our own work
    is finished, before the loop waits for tasks that others left on it.
    """

    async def main() -> None:
        worker = WireWorker(config, startup, log)
        on_built(worker)
        loop = asyncio.get_running_loop()
        if threading.current_thread() is threading.main_thread():
            leave_forks_alone()
            for number in stop_signals():
                loop.add_signal_handler(number, worker.stop)
        settle_interpreter()
        TURNS.shorten()
        await worker.run()
        on_ended(worker)

    event_loop.run(main())
