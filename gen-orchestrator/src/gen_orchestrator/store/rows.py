"""Converts rows to values. A database accepts any value in any column, and files rot, so each row is checked when it is read."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import msgspec

from gen_orchestrator.store.base import DamagedRowError

S = TypeVar("S", bound=msgspec.Struct)


@contextmanager
def readable(what: str, name: object) -> Iterator[None]:
    """Convert errors while reading a row into `DamagedRowError`, which names the row."""
    try:
        yield
    except (TypeError, ValueError, OverflowError) as exc:  # includes msgspec's errors
        raise DamagedRowError(f"{what} {name!r} cannot be read from the store, because its row is damaged: {exc}") from None


def checked(fields: Mapping[str, Any], kind: type[S]) -> S:
    """A value made from these fields; `msgspec.ValidationError` when a type is wrong."""
    return msgspec.convert(fields, kind, builtin_types=(bytes,))
