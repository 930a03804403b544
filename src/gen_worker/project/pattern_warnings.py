"""Warns about patterns that take for ever for some texts. `cozyctl check` and discovery prove each warning with an
example, so it is never wrong.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from gen_worker.authoring.pattern_process import PatternProcess, PatternTooSlowError
from gen_worker.authoring.patterns import cost_of, max_length_of, parsed, pattern_of
from gen_worker.authoring.shapes import Record, shape_of
from gen_worker.authoring.signature import FunctionSpec

_FEW = 28
_MANY = 3000
_SURELY_FAST = 10_000  # characters


def pattern_warnings(specs: Sequence[FunctionSpec]) -> list[str]:
    """A sentence for each pattern of a payload field for which a short text takes longer than a payload may take."""
    found: dict[str, str] = {}
    process = PatternProcess()
    try:
        for spec in specs:
            for place, pattern, max_length in _patterns(spec.payload_type):
                if pattern not in found and (text := slow_text(process, pattern, max_length)):
                    shown = text if len(text) <= 40 else f"{text[:20]}...{text[-5:]}"
                    found[pattern] = (
                        f"{place}: the pattern {pattern!r} takes too long for some texts, such as {shown!r} ({len(text)} characters). "
                        "Runs with such texts are refused. Rewrite it without a repeat in a repeated group, or give the field a max_length"
                    )
    finally:
        process.close()
    return list(found.values())


def _patterns(struct: type) -> Iterator[tuple[str, str, int | None]]:
    for record in shape_of(struct).everywhere():
        if isinstance(record, Record):
            for field in record.fields:
                for shape in field.shape.everywhere():
                    if (pattern := pattern_of(shape)) is not None:
                        yield f"{record.kind.__name__}.{field.name}", pattern, max_length_of(shape)


def slow_text(process: PatternProcess, pattern: str, max_length: int | None) -> str | None:
    """A text for which a pattern takes too long, if one is found among the likely candidates."""
    if cost_of(pattern).max_chars(1e7) >= min(_SURELY_FAST, max_length or _SURELY_FAST):
        return None
    for text in worst_texts(pattern):
        try:
            if max_length is None or len(text) <= max_length:
                process.first_misfit(pattern, [text])
        except PatternTooSlowError:
            return text
    return None


def worst_texts(pattern: str) -> Iterator[str]:
    """Texts that make a pattern work hardest: what its repeats match, many times, followed by something else."""
    tree = list(parsed(pattern) or ())
    for index, (name, argument) in enumerate(tree):
        for repeated in _repeats(str(name), argument):
            before = "".join(_sample(str(each), inner) for each, inner in tree[:index])
            for count in (_FEW, _MANY):
                for end in ("!", "\x00", ""):
                    yield before + repeated * count + end


def _repeats(name: str, argument: Any) -> Iterator[str]:
    """An example for each repeat, outer ones first."""
    inner = _inner(name, argument)
    if name.endswith("REPEAT") and int(argument[1]) > 1:
        example = "".join(_sample(str(each), below) for each, below in inner)
        if example:
            yield example
    for each, below in inner:
        yield from _repeats(str(each), below)


def _inner(name: str, argument: Any) -> list[tuple[Any, Any]]:
    if name.endswith("REPEAT"):
        return list(argument[2])
    if name == "SUBPATTERN":
        return list(argument[3])
    if name == "BRANCH":
        return list(argument[1][0])
    return list(argument) if name == "ATOMIC_GROUP" else []


def _sample(name: str, argument: Any) -> str:
    """A text that a part of a pattern matches, if it is easy to find."""
    if name == "LITERAL":
        return chr(argument)
    if name == "NOT_LITERAL":
        return "b" if argument == ord("a") else "a"
    if name == "ANY":
        return "a"
    if name == "IN":
        return _sample_of_set(argument)
    if name.endswith("REPEAT"):
        return "".join(_sample(str(each), below) for each, below in argument[2]) * max(1, int(argument[0]))
    return "".join(_sample(str(each), below) for each, below in _inner(name, argument))


def _sample_of_set(members: Sequence[tuple[Any, Any]]) -> str:
    kinds = {"CATEGORY_DIGIT": "1", "CATEGORY_WORD": "a", "CATEGORY_SPACE": " ", "CATEGORY_NOT_SPACE": "a", "CATEGORY_NOT_DIGIT": "a"}
    for name, argument in members:
        if str(name) == "NEGATE":
            excluded = {chr(code) for each, code in members if str(each) == "LITERAL"}
            return next((letter for letter in "ab1 -_" if letter not in excluded), "a")
        if str(name) == "LITERAL":
            return chr(argument)
        if str(name) == "RANGE":
            return chr(argument[0])
        if str(name) == "CATEGORY":
            return kinds.get(str(argument), "-")
    return "a"
