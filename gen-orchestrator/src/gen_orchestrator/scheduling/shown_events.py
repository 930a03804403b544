"""Which events of a worker the readers of a run are shown, and under which name. Pure."""

from gen_worker import events

_NAMES = {events.OUTPUT_DELTA: "output", events.PROGRESS: "progress", events.LOG: "log"}
_MACHINERY = ("task.", "metrics.", "output.")


def shown_as(event_type: str) -> str | None:
    """`output`, `progress`, `log`, or `custom` for an event of the author's own; None for one that is for the control plane alone."""
    if name := _NAMES.get(event_type):
        return name
    if event_type.endswith(".stuck"):
        return "log"
    return None if event_type.startswith(_MACHINERY) else "custom"
