"""What every run of an executor works with."""

from collections.abc import Callable, Coroutine
from typing import Any

import msgspec

from gen_worker.clock import Clock
from gen_worker.execution.batching import Batchers
from gen_worker.execution.mailbox import Mailbox
from gen_worker.execution.outputs import OutputLimits
from gen_worker.execution.payload_desk import PayloadDesk
from gen_worker.execution.stuck import StuckWatch
from gen_worker.execution.tenant_loop import TenantLoop
from gen_worker.execution.threads import RunThreads
from gen_worker.files.inputs import InputFiles
from gen_worker.log import Log
from gen_worker.residency.manager import LoadedModels


class RunParts(msgspec.Struct, frozen=True):
    """Made once, by the executor. `background` runs a coroutine that belongs to no single run."""

    models: LoadedModels
    inputs: InputFiles
    log: Log
    clock: Clock
    device: str | None
    mailbox: Mailbox
    threads: RunThreads
    tenant: TenantLoop
    stuck: StuckWatch
    batchers: Batchers
    limits: OutputLimits
    desk: PayloadDesk
    background: Callable[[Coroutine[Any, Any, None], str], None]
