"""Names of loaded models: which model, as what type, in which state, on which device.

A model may be on a device more than once: as a pipeline and as its tokenizer, in two versions or precisions, on two devices. Where such
a name stands as text (`ModelCache`, logs, `measured.json`) it is `ref#Type`, `ref#Type#state` or `ref#Type#state#@1`. This module alone
makes and reads that text.
"""

from typing import Any, Self

import msgspec


class FormId(msgspec.Struct, frozen=True):
    """`state` tells versions and precisions of one form apart, empty for the first; `place` is the device's number."""

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
        """The name that a text stands for; a name that a program gave by hand is a model's."""
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
        """The same, whatever its state and device."""
        return FormId(self.model_id, self.type_name)


def model_of(text: str) -> str:
    """The model that a name in the cache is a form of."""
    return FormId.read(text).model_id
