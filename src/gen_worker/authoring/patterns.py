"""Bounds how long a pattern may take, from its text alone: `re` backtracks, and some patterns take years for a text of
thirty letters.

`^(a+)+$` tries each way to cut `aaaa!` into pieces before it gives up: twice as many for each letter. `a*a*b` tries
each pair of positions. `cost_of` returns an upper bound: `factor * length ** degree` steps, or `EXPONENTIAL` when there
is no such bound. It does not know which texts match, so it calls some harmless patterns exponential; they are then
checked with a deadline, and work as before. Background: https://www.regular-expressions.info/catastrophic.html, Russ
Cox, https://swtch.com/~rsc/regexp/regexp1.html
"""

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from gen_worker.authoring.shapes import Shape

try:
    from re import _parser  # type: ignore[attr-defined]
except ImportError:  # it is not public; without it every pattern is treated as possibly slow
    _parser = None

EXPONENTIAL = 99
_MAX_FACTOR = 4096


class Cost(msgspec.Struct, frozen=True):
    """At most `factor * n ** degree` steps for a text of n characters. `degree` is `EXPONENTIAL` when no such bound is known."""

    degree: int
    factor: int = 1

    def max_chars(self, steps: float) -> int:
        """The longest text that takes at most this many steps."""
        if self.degree >= EXPONENTIAL:
            return 0
        return int((steps / self.factor) ** (1 / max(1, self.degree)))


def pattern_of(shape: Shape) -> str | None:
    """The pattern that texts of this shape must match."""
    found = [extra.pattern for extra in shape.extras if isinstance(extra, msgspec.Meta) and extra.pattern is not None]
    return found[0] if found and shape.annotation is str else None


def max_length_of(shape: Shape) -> int | None:
    """The length that is checked before the pattern is."""
    found = [extra.max_length for extra in shape.extras if isinstance(extra, msgspec.Meta) and extra.max_length is not None]
    return min(found) if found else None


def cost_of(pattern: str) -> Cost:
    """The bound for searching a text for `pattern`."""
    tree = parsed(pattern)
    if tree is None:
        return Cost(EXPONENTIAL)
    try:
        found = _Count()
        found.sequence(list(tree))
    except (RecursionError, _Unbounded):
        return Cost(EXPONENTIAL)
    starts_anywhere = not _is_anchored(list(tree)) or bool(tree.state.flags & re.MULTILINE)
    return Cost(found.degree + starts_anywhere, found.factor)


def parsed(pattern: str) -> Any:
    """The tree that `re` builds from a pattern: pairs of a name and its argument. None when it is not available."""
    try:
        return None if _parser is None else _parser.parse(pattern)
    except (re.error, RecursionError):
        return None


class _Unbounded(Exception):  # noqa: N818 - a finding, not an error
    pass


class _Count:
    """Adds up what a parsed pattern may try: one degree for each repeat that can stop at many positions."""

    def __init__(self) -> None:
        self.degree = 0
        self.factor = 1

    def sequence(self, items: Sequence[tuple[Any, Any]], *, repeated: bool = False) -> None:
        for name, argument in items:
            self.item(str(name), argument, repeated=repeated)

    def item(self, name: str, argument: Any, *, repeated: bool) -> None:
        if name in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"):
            low, high, inner = argument
            if int(high) != int(low):
                self._choice(repeated=repeated)
                if int(high) - int(low) > 1:
                    self.degree += 1
                else:
                    self._times(2)
            else:
                self._times(max(1, int(high)))
            self.sequence(list(inner), repeated=repeated or int(high) > 1)
        elif name == "BRANCH":
            self._choice(repeated=repeated)
            self._times(len(argument[1]))
            for branch in argument[1]:
                self.sequence(list(branch), repeated=repeated)
        elif name == "SUBPATTERN":
            self.sequence(list(argument[3]), repeated=repeated)
        elif name == "ATOMIC_GROUP":
            self.sequence(list(argument), repeated=repeated)
        elif name in ("ASSERT", "ASSERT_NOT"):
            self.sequence(list(argument[1]), repeated=repeated)
        elif name not in ("LITERAL", "NOT_LITERAL", "IN", "ANY", "AT", "CATEGORY", "RANGE", "FAILURE"):
            raise _Unbounded  # references to groups, and features of later Python versions

    def _choice(self, *, repeated: bool) -> None:
        """A choice between alternatives. In a repeated group the choices multiply with each round."""
        if repeated:
            raise _Unbounded

    def _times(self, count: int) -> None:
        self.factor *= count
        if self.factor > _MAX_FACTOR:
            raise _Unbounded


def _is_anchored(items: Sequence[tuple[Any, Any]]) -> bool:
    """Whether it can only match at the start of the text."""
    if not items:
        return False
    name, argument = items[0]
    if str(name) == "SUBPATTERN":
        return _is_anchored(list(argument[3]))
    return str(name) == "AT" and str(argument) in ("AT_BEGINNING", "AT_BEGINNING_STRING")
