"""Declares that a parameter of a function receives a model: `Annotated[Pipeline, ModelRef(ModelRefSource.FIXED, "sd15")]`."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar


class ModelRefSource(StrEnum):
    """Who chooses the model: the author (FIXED), or the caller through a payload field (PAYLOAD)."""

    FIXED = "fixed"
    PAYLOAD = "payload"


@dataclass(frozen=True)
class ModelRef:
    """Which model a parameter receives.

    `key` is a key of `[models]` in cozy.toml (FIXED), or the name of the payload field that contains one (PAYLOAD).
    `ref` and `dtypes` declare a FIXED model in the signature itself instead of in cozy.toml.
    """

    source: ModelRefSource
    key: str
    ref: str | None = None
    dtypes: tuple[str, ...] = ()


LOADER_MARK = "__gen_worker_loader__"
F = TypeVar("F", bound=Callable[..., Any])


def model_loader(kind: Any) -> Callable[[F], F]:
    """Mark a function that loads models of a type: `@model_loader(Engine) def load(path: Path, device: str) -> Engine`.

    Its parameters are any of `path` (the model's folder or file), `device` (`"cuda"`, `"cpu"`, ...) and `dtypes`
    (allowed precisions, best first). It serves the endpoint functions of every module that defines or imports it. If
    the returned object has an int attribute `size_bytes`, that is its size on the device.
    """

    def mark(function: F) -> F:
        setattr(function, LOADER_MARK, kind)
        return function

    return mark
