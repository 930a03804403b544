"""Records what routing decided, and from which facts: a file of JSON lines with which other policies can be tried
offline (`benchmarks/routing_replay.py`).

Workers are recorded when they join, change their models, or leave. Runs are recorded when they are given to a worker,
with all facts that the decision used, and when their worker has reported how they ended. Payloads, outputs and callers
are not recorded.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from gen_orchestrator.domain.routing import Choice, Need, WorkerView
from gen_orchestrator.scheduling.open_run import OpenRun
from gen_orchestrator.scheduling.pool import Worker


class WorkerSeen(msgspec.Struct, frozen=True, kw_only=True, tag="worker"):
    """A worker as it describes itself. `at` is in seconds of one clock throughout the file. `tiers`: model ref to tier
    and bytes; `device_bytes` 0: it has no device of its own, or does not say.
    """

    at: float
    worker_id: str
    release_id: str
    functions: tuple[str, ...] = ()
    slots: int = 0
    device_bytes: int = 0
    load_bytes_per_s: int = 0
    network_bytes_per_s: int = 0
    tiers: Mapping[str, tuple[str, int]] = {}


class WorkerGone(msgspec.Struct, frozen=True, tag="gone"):
    """This worker gets no more runs."""

    at: float
    worker_id: str


class Given(msgspec.Struct, frozen=True, kw_only=True, tag="given"):
    """A run was given to a worker, `waited_s` after it was accepted; `need` and `workers` are the input of the choice."""

    at: float
    run_id: str
    release_id: str
    function: str
    attempt: int
    waited_s: float
    need: Need
    workers: tuple[WorkerView, ...]
    worker_id: str
    reason: str


class Ended(msgspec.Struct, frozen=True, kw_only=True, tag="ended"):
    """A worker has reported the end of an attempt. `took_s` since it was given; of that `models_s` for bringing models."""

    at: float
    run_id: str
    attempt: int
    succeeded: bool
    took_s: float
    models_s: float


Entry = WorkerSeen | WorkerGone | Given | Ended
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Entry).decode


class _Fetched(msgspec.Struct):
    download_ms: int | None = None


class _Loads(msgspec.Struct):
    gpu_load_ms: int | None = None
    models: tuple[_Fetched, ...] = ()


_loads = msgspec.json.Decoder(_Loads).decode


class Trace:
    """`write` gets each line; without it nothing is recorded, at no cost. `unix_s` is the clock by which runs were accepted."""

    def __init__(self, write: Callable[[bytes], Any] | None = None, unix_s: Callable[[], float] = lambda: 0.0) -> None:
        self._write = write
        self._unix_s = unix_s
        self._known: dict[str, WorkerSeen] = {}

    def seen(self, worker: Worker, now_s: float) -> None:
        """A worker has reported what it has."""
        if self._write is None:
            return
        view, resources = worker.view(now_s), worker.resources
        entry = WorkerSeen(
            at=now_s,
            worker_id=worker.worker_id,
            release_id=worker.release_id,
            functions=tuple(sorted(worker.functions)),
            slots=view.slots,
            device_bytes=resources.gpu_memory_bytes,
            load_bytes_per_s=view.load_bytes_per_s,
            network_bytes_per_s=view.network_bytes_per_s,
            tiers=dict(view.tiers),
        )
        known = self._known.get(worker.worker_id)
        if known is None or msgspec.structs.replace(known, at=now_s) != entry:
            self._known[worker.worker_id] = entry
            self._note(entry)

    def gone(self, worker_id: str, now_s: float) -> None:
        """A worker is no longer known."""
        if self._write is not None and self._known.pop(worker_id, None) is not None:
            self._note(WorkerGone(now_s, worker_id))

    def given(self, open_run: OpenRun, need: Need, workers: Sequence[WorkerView], choice: Choice, now_s: float) -> None:
        """A run goes to a worker."""
        if self._write is None:
            return
        lane = open_run.lane
        entry = Given(
            at=now_s,
            run_id=open_run.id,
            release_id=lane.release_id,
            function=lane.function,
            attempt=open_run.run.attempt + 1,
            waited_s=max(0.0, self._unix_s() - open_run.run.created_at),
            need=need,
            workers=tuple(workers),
            worker_id=choice.worker_id,
            reason=choice.reason,
        )
        self._note(entry)

    def ended(self, open_run: OpenRun, now_s: float, *, succeeded: bool) -> None:
        """The worker has reported the end of the attempt."""
        if self._write is None:
            return
        loads = _loads(open_run.metrics) if open_run.metrics else _Loads()
        models_s = ((loads.gpu_load_ms or 0) + sum(each.download_ms or 0 for each in loads.models)) / 1000
        took_s = now_s - open_run.began_s
        self._note(Ended(at=now_s, run_id=open_run.id, attempt=open_run.run.attempt, succeeded=succeeded, took_s=took_s, models_s=models_s))

    def _note(self, entry: Entry) -> None:
        assert self._write is not None
        try:
            self._write(_encode(entry) + b"\n")
        except OSError:  # no room: runs continue without the trace
            self._write = None


def read_trace(path: Path) -> Iterator[Entry]:
    """The entries of a file in order. An incomplete last line, as left by a kill, is skipped."""
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.endswith(b"\n"):
                return
            try:
                yield _decode(line)
            except msgspec.DecodeError as exc:
                raise ValueError(f"{path}:{number} is not a line of a routing trace: {exc}") from None
