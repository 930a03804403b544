"""How runs of several callers are collected into one call."""

import msgspec

MAX_SIZE = 4096


class Batch(msgspec.Struct, frozen=True):
    """For `@worker_function(batch=Batch(...))` on `def f(ctx, payloads: list[Input]) -> list[Output]`.

    A call takes up to `max_size` payloads. The first one waits at most `max_wait_ms` for others. While `parallel` calls
    are running, the next payloads are collected without that limit. The result holds one output for each payload, in
    order; an exception in place of an output fails that run alone. If the call itself raises, its payloads are tried
    again one by one, so that only the bad one fails.
    """

    max_size: int = 16
    max_wait_ms: float = 5.0
    parallel: int = 1

    def __post_init__(self) -> None:
        _check("max_size", self.max_size, 1, MAX_SIZE, whole=True)
        _check("max_wait_ms", self.max_wait_ms, 0, 60_000, whole=False)
        _check("parallel", self.parallel, 1, 64, whole=True)


def _check(name: str, value: object, low: int, high: int, *, whole: bool) -> None:
    kinds = int if whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= high:
        raise ValueError(f"Batch({name}={value!r}): expected a {'whole ' if whole else ''}number from {low} to {high}")
