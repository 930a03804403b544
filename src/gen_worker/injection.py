"""Ask for a model in a function's signature: `Annotated[Pipeline, ModelRef(ModelRefSource.FIXED, "sd15")]`."""

from dataclasses import dataclass
from enum import StrEnum


class ModelRefSource(StrEnum):
    """Who chooses the model: the author (FIXED) or the caller, through a payload field (PAYLOAD)."""

    FIXED = "fixed"
    PAYLOAD = "payload"


@dataclass(frozen=True)
class ModelRef:
    """Which model a parameter gets.

    `key` is a key of `[models]` in cozy.toml (FIXED), or the name of the payload field that holds one (PAYLOAD).
    `ref` and `dtypes` declare a FIXED model in the signature itself instead of in cozy.toml.
    """

    source: ModelRefSource
    key: str
    ref: str | None = None
    dtypes: tuple[str, ...] = ()
