"""What came of a run, as JSON values that can be compared."""

from typing import Any

import msgspec

from gen_orchestrator.domain.runs import Run
from gen_orchestrator.scheduling.feed import decode_entries
from gen_orchestrator.scheduling.heard import output_in
from gen_orchestrator.store.base import RunStore


def output_of(run: Run, store: RunStore) -> Any:
    """The output of a run that has succeeded; of a stream its last attempt's items, None where they are kept no more. Blocking."""
    if run.output:
        return msgspec.json.decode(msgspec.json.encode(output_in(run.output)))
    entries = [entry for entry in decode_entries(chunk.events for chunk in store.events_of(run.id)) if entry.attempt == run.attempt]
    return [msgspec.json.decode(entry.data) for entry in entries if entry.name == "output"] if entries else None
