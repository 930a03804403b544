"""Reads payloads: on the loop when that is quick, otherwise in a thread, with the author's patterns tried in a separate process."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import msgspec

from gen_worker.authoring.pattern_process import PatternProcess
from gen_worker.authoring.signature import FunctionSpec
from gen_worker.execution.encoding import Encoding
from gen_worker.execution.payloads import Payload, check_output_patterns, read_payload, reads_at_once, runs_code
from gen_worker.execution.request import RunRequest
from gen_worker.execution.threads import RunThreads
from gen_worker.outcome import Failure, ToldError, failure_of

_THREADS = 2  # they wait for one process, or hold Python's lock


class PayloadDesk:
    """One for each executor. All payloads of callers are read here, so that no text of theirs can block the loop."""

    def __init__(self, max_bytes: int, run_threads: RunThreads) -> None:
        self._max_bytes = max_bytes
        self._run_threads = run_threads
        self._patterns = PatternProcess()
        self._threads = ThreadPoolExecutor(_THREADS, "payload")

    def is_quick(self, spec: FunctionSpec, request: RunRequest) -> bool:
        """Whether `read` may be called on the loop."""
        return reads_at_once(spec.payload_type, len(request.payload))

    def read(self, spec: FunctionSpec, request: RunRequest) -> Payload:
        """The payload; `ValidationError` when it is invalid. A realtime session has none."""
        if request.socket is not None:
            return Payload(spec.payload_type())
        return read_payload(spec.payload_type, request.payload, request.encoding, max_bytes=self._max_bytes, patterns=self._patterns)

    async def read_aside(self, spec: FunctionSpec, request: RunRequest) -> Payload:
        """Like `read`, off the loop. Types with the author's own code are read where authors' code runs, because that
        may take any time.
        """
        if runs_code(spec.payload_type):
            return await self._read_as_the_author(spec, request)
        return await asyncio.get_running_loop().run_in_executor(self._threads, self.read, spec, request)

    async def _read_as_the_author(self, spec: FunctionSpec, request: RunRequest) -> Payload:
        read: asyncio.Future[Payload | Failure | None] = asyncio.get_running_loop().create_future()

        def job() -> Payload | Failure:
            try:
                return self.read(spec, request)
            except BaseException as exc:  # noqa: BLE001 - the edge to the author's code
                return failure_of(exc)

        def ended(result: Payload | Failure | None) -> None:
            if not read.done():
                read.set_result(result)

        work = self._run_threads.start(f"payload {spec.name} {request.run_id}", job, ended)
        try:
            result = await read
        except asyncio.CancelledError:
            work.leave(request.run_id, spec.name)
            raise
        if isinstance(result, Payload):
            return result
        raise ToldError(result or failure_of(RuntimeError("reading the payload broke")), "")

    def check_output(self, kind: type[msgspec.Struct], data: bytes, encoding: Encoding) -> None:
        """`ValidationError` when a text in an encoded output breaks a pattern of its type. Outputs may contain texts of callers."""
        check_output_patterns(kind, data, encoding, self._patterns)

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._patterns.close()
