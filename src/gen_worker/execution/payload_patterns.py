"""Tries regular expressions that may take long on a payload's texts, in another process, before msgspec tries them in ours."""

from collections.abc import Iterator, Mapping
from typing import Any

from gen_worker.authoring.pattern_process import PatternProcess, PatternTooSlowError
from gen_worker.authoring.patterns import Cost, cost_of, max_length_of, pattern_of
from gen_worker.authoring.shapes import Fixed, Items, Record, Shape, Table
from gen_worker.errors import FieldError, ValidationError
from gen_worker.json_keys import escape_pointer

STEPS = 2e5  # steps of backtracking that are harmless in our own process: a few milliseconds


class PayloadPatterns:
    """The patterns of one payload type."""

    def __init__(self, shape: Shape) -> None:
        self._shape = shape
        self._costs: Mapping[str, Cost] = {
            pattern: cost_of(pattern) for below in shape.everywhere() if (pattern := pattern_of(below)) is not None
        }

    @property
    def max_quick_bytes(self) -> float:
        """Up to this size in bytes a payload needs no other process, whatever texts it holds."""
        return min((cost.max_chars(STEPS) for cost in self._costs.values()), default=float("inf"))

    def check(self, plain: Any, process: PatternProcess, *, root: str = "payload") -> None:
        """`ValidationError` when a text breaks its pattern, or checking it takes too long. Blocks. `root`: what `plain`
        is called in messages.
        """
        found: dict[str, list[tuple[tuple[Any, ...], str]]] = {}
        for path, shape, text in self._texts(plain):
            pattern = pattern_of(shape)
            max_length = max_length_of(shape)
            if pattern is None or (max_length is not None and len(text) > max_length):
                continue  # too long a text is reported before its pattern is tried
            if len(text) > self._costs[pattern].max_chars(STEPS):
                found.setdefault(pattern, []).append((path, text))
        for pattern, places in found.items():
            try:
                misfit = process.first_misfit(pattern, [text for _, text in places])
            except PatternTooSlowError:
                raise _refused(root, places[0][0], f"takes too long to check against the pattern {pattern!r}; shorten it") from None
            if misfit is not None:
                raise _refused(root, places[misfit][0], f"expected str matching regex {pattern!r}")

    def _texts(self, plain: Any) -> Iterator[tuple[tuple[Any, ...], Shape, str]]:
        """Every text in the payload with its path and type, including keys of objects."""
        todo: list[tuple[tuple[Any, ...], Shape, Any]] = [((), self._shape, plain)]
        while todo:
            path, shape, value = todo.pop()
            if isinstance(value, str):
                yield from ((path, member, value) for member in shape.members)
                continue
            match shape.member_for(value):
                case Record(is_array=False) as record if isinstance(value, dict):
                    todo += [((*path, key), field.shape, value[key]) for key, field in record.by_key.items() if key in value]
                case Record() as record:
                    todo += [((*path, field.index), field.shape, value[field.index]) for field in record.fields if field.index < len(value)]
                case Table() as table if isinstance(value, dict):
                    todo += [((*path, key), table.key, key) for key in value]
                    todo += [((*path, key), table.value, item) for key, item in value.items()]
                case Items() as items if isinstance(value, list):
                    todo += [((*path, index), items.item, item) for index, item in enumerate(value)]
                case Fixed() as fixed if isinstance(value, list):
                    todo += [((*path, index), part, item) for index, (part, item) in enumerate(zip(fixed.parts, value, strict=False))]


def _refused(root: str, path: tuple[Any, ...], why: str) -> ValidationError:
    shown = "".join(f"[{part}]" if isinstance(part, int) else f".{str(part)[:100]}" for part in path)
    pointer = "".join(f"/{escape_pointer(str(part)[:100])}" for part in path)
    return ValidationError(f"{root}{shown}: {why}.", errors=(FieldError(pointer, why),))
