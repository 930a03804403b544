"""Names of loaded models: which model, as what type, in which state, on which device.

A model may be on a device more than once: as a pipeline and as its tokenizer, in two versions or precisions, on two
devices. Where such a name is stored as text (`ModelCache`, logs, `measured.json`) it reads `ref#Type`, `ref#Type#state`
or `ref#Type#state#@1`. Only this module writes and parses that text.
"""

from typing import Any, Self

import msgspec


class FormId(msgspec.Struct, frozen=True):
    """`state` distinguishes versions and precisions of one form; it is empty for the first. `place` is the device's number."""

    model_id: str
    type_name: str = ""
    state: str = ""
    place: int = 0

    @classmethod
    def of(cls, model_id: str, annotation: Any) -> Self:
        """A model as one type, such as its pipeline."""
        return cls(model_id, getattr(annotation, "__name__", str(annotation)))

    @classmethod
    def read(cls, text: str) -> Self:
        """Parse a name. Text that is not such a name, because a program entered it by hand, is the model's id."""
        model_id, *parts = text.split("#")
        last = parts[-1] if parts else ""
        place = int(last[1:]) if last[:1] == "@" and last[1:].isascii() and last[1:].isdigit() else 0
        if place:
            parts.pop()
        type_name, state = [*parts, "", ""][:2]
        return cls(model_id, type_name, state, place)

    def __str__(self) -> str:
        parts = [self.model_id, self.type_name, self.state, f"@{self.place}" if self.place else ""]
        return "#".join(part for part in parts if part)

    @property
    def form(self) -> "FormId":
        """The same form without its state and device."""
        return FormId(self.model_id, self.type_name)


def model_of(text: str) -> str:
    """The model id in a cache name."""
    return FormId.read(text).model_id
