"""The result of a run as JSON values that can be compared."""

from typing import Any

import msgspec

from gen_orchestrator.domain.runs import Run
from gen_orchestrator.scheduling.feed import decode_entries
from gen_orchestrator.scheduling.heard import output_in
from gen_orchestrator.scheduling.open_run import OpenRun
from gen_orchestrator.store.base import RunStore


def output_of(run: Run, store: RunStore) -> Any:
    """The output of a successful run; for a stream the items of its last attempt, None when they are no longer kept. Blocking."""
    if run.output:
        return json_of(run.output)
    entries = [entry for entry in decode_entries(chunk.events for chunk in store.events_of(run.id)) if entry.attempt == run.attempt]
    return [msgspec.json.decode(entry.data) for entry in entries if entry.name == "output"] if entries else None


def items_of(open_run: OpenRun) -> list[msgspec.Raw] | None:
    """What the last attempt of a run in memory has streamed; None when its first items are no longer in memory."""
    attempt = open_run.run.attempt
    entries = [entry for entry in open_run.feed.after((attempt, 0)) if entry.attempt == attempt]
    if len(entries) < open_run.feed.seqs.get(attempt, 0):
        return None
    return [entry.data for entry in entries if entry.name == "output"]


def json_of(output: bytes) -> Any:
    """A run's output, msgpack, as JSON values."""
    return msgspec.json.decode(msgspec.json.encode(output_in(output)))
