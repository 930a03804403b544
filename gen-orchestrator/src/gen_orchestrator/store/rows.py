"""From a row to a value. A database takes any value in any column, and files rot: what is read is checked, row by row."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import msgspec

from gen_orchestrator.store.base import DamagedRowError

S = TypeVar("S", bound=msgspec.Struct)


@contextmanager
def readable(what: str, name: object) -> Iterator[None]:
    """What the reader of a row may raise, as `DamagedRowError`, which names the row."""
    try:
        yield
    except (TypeError, ValueError, OverflowError) as exc:  # msgspec's errors are among them
        raise DamagedRowError(f"{what} {name!r} cannot be read from the store, where its row is damaged: {exc}") from None


def checked(fields: Mapping[str, Any], kind: type[S]) -> S:
    """A value of these fields, `msgspec.ValidationError` for one of another type."""
    return msgspec.convert(fields, kind, builtin_types=(bytes,))
