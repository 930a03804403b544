"""Builds everything that one local run needs from options."""

import os
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from gen_worker.authoring.assets import Asset
from gen_worker.dev.server import ServeOptions, dev_config
from gen_worker.events import RunEvent
from gen_worker.execution.admission import Admission
from gen_worker.execution.build import build_execution
from gen_worker.execution.cancellation import CancelToken
from gen_worker.execution.children import LocalCalls
from gen_worker.execution.request import RunRequest
from gen_worker.files.local_outputs import LocalOutputs
from gen_worker.log import Log
from gen_worker.outcome import Outcome
from gen_worker.project.served import Served

OnEvent = Callable[[RunEvent], None]


class LocalSession:
    """One run, not started yet."""

    def __init__(
        self,
        options: ServeOptions,
        served: Served,
        function: str,
        payload: bytes,
        uploads: Mapping[str, Path],
        timeout_ms: int,
        run_dir: Path,
    ) -> None:
        self.spec = next(spec for spec in served.functions if spec.name == function)
        self.config = dev_config(options, os.environ, run_dir, served)
        run_id = secrets.token_hex(12)
        self.request = RunRequest(run_id=run_id, payload=payload, timeout_ms=timeout_ms, uploads=uploads)
        self.token = CancelToken()
        self.functions = {spec.name: spec for spec in served.functions}
        self.endpoint = served.endpoint_name

    def interrupt(self) -> None:
        """Cancel the run."""
        self.token.cancel()


class _Sink:
    """Shows events as they come; always ready."""

    ready = True

    def __init__(self, emit: OnEvent) -> None:
        self.emit = emit

    def emit_all(self, events: list[RunEvent]) -> None:
        for event in events:
            self.emit(event)

    def on_ready(self, callback: Callable[[], None]) -> None:
        callback()


async def run_locally(session: LocalSession, on_event: OnEvent, log: Log) -> tuple[Outcome, list[Asset]]:
    """ROOT of a local run: returns its outcome and the files it saved."""
    config = session.config
    execution = build_execution(
        config.execution, config.run_dir, log, models_by_function=config.models_by_function, saved_file=lambda ref: None
    )
    files: list[Asset] = []
    outputs = LocalOutputs(config.outputs, config.execution.limits.upload_bytes, files.append)
    calls = LocalCalls(lambda: session.functions, execution.executor, Admission(), session.endpoint)
    children = calls.of_run(session.request, session.spec.name, LocalOutputs(config.outputs, config.execution.limits.upload_bytes))
    request = msgspec.structs.replace(session.request, children=children)
    try:
        return await execution.executor.run(session.spec, request, _Sink(on_event), session.token, outputs), files
    finally:
        execution.close()
