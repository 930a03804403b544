"""Which events of a worker the readers of a run see, and under which names. Pure."""

import msgspec

from gen_orchestrator.scheduling.heard import UNREADABLE
from gen_worker import events

_NAMES = {events.OUTPUT_DELTA: "output", events.PROGRESS: "progress", events.LOG: "log"}
_MACHINERY = ("task.", "metrics.", "output.")


def shown_as(event_type: str) -> str | None:
    """`output`, `progress`, `log`, or `custom` for an event of the author's own; None for one that only concerns the control plane."""
    if name := _NAMES.get(event_type):
        return name
    if event_type.endswith(".stuck"):
        return "log"
    return None if event_type.startswith(_MACHINERY) else "custom"


def is_step(event_type: str) -> bool:
    """Whether an event reports that a run has reached its next step."""
    return event_type.startswith("task.") and event_type.endswith((".started", ".completed", ".failed"))


class _Warned(msgspec.Struct):
    warnings: msgspec.Raw = msgspec.Raw(b"")


def warnings_of(payload: bytes) -> bytes:
    """The JSON array in a `task.warning`: fields of the payload that the function ignored. Empty when there are none."""
    try:
        return bytes(msgspec.json.decode(payload, type=_Warned).warnings)
    except UNREADABLE:  # from another implementation of a worker
        return b""
