"""Converts environment variables to typed values within ranges. Errors name the variable, its value and what was
expected.

Each field declares its range in its type: `Annotated[float, Range(0, 3600, "seconds")]`. A test of this package refuses
a number without one: a negative count waits for ever, and an infinite size is a traceback hours later.
"""

import math
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar, get_args, get_origin

import msgspec

S = TypeVar("S", bound=msgspec.Struct)
TRUE = ("1", "true", "yes", "on", "y", "t")
FALSE = ("0", "false", "no", "off", "n", "f")
MAX_SHOWN = 100


class SettingError(ValueError):
    """An environment variable has an unusable value."""


class Range(msgspec.Struct, frozen=True):
    """Numbers from `low` to `high`; never NaN. `zero` says what 0 means when it is special."""

    low: float
    high: float
    unit: str
    zero: str = ""

    def check(self, value: Any) -> bool:
        return not math.isnan(value) and self.low <= value <= self.high

    def __str__(self) -> str:
        text = f"{self.unit} from {self.low:g} up to {_plain(self.high)}"
        return f"{text} (0 or below: {self.zero})" if self.low < 0 else f"{text} (0: {self.zero})" if self.zero else text


class Switch(msgspec.Struct, frozen=True):
    """A text that `is_true` reads."""

    def check(self, value: str) -> bool:
        return value.lower() in TRUE + FALSE

    def __str__(self) -> str:
        return f"one of {', '.join(TRUE)} or {', '.join(FALSE)}"


class HttpUrl(msgspec.Struct, frozen=True):
    """The address of a service."""

    def check(self, value: str) -> bool:
        scheme, _, rest = value.partition("://")
        return scheme.lower() in ("http", "https") and bool(rest.strip("/")) and value.isprintable() and " " not in value

    def __str__(self) -> str:
        return "an address such as https://host or http://host:port"


class OneOf(msgspec.Struct, frozen=True):
    """One of a few words."""

    words: tuple[str, ...]

    def check(self, value: str) -> bool:
        return value in self.words

    def __str__(self) -> str:
        return " or ".join(self.words)


NO_LIMIT = "no limit"
WEEK_S = 7 * 24 * 3600
Seconds = Annotated[float, Range(0, WEEK_S, "seconds")]
Count = Annotated[int, Range(0, 1_000_000, "a whole number", NO_LIMIT)]
Bytes = Annotated[int, Range(0, 1 << 50, "bytes", NO_LIMIT)]
FileBytes = Annotated[int, Range(-1, 1 << 50, "bytes", NO_LIMIT)]  # published workers treat 0 and negative numbers as no limit
Gigabytes = Annotated[float, Range(0, 1_000_000, "GB of 10^9 bytes")]
Flag = Annotated[str, Switch()]
Url = Annotated[str, HttpUrl()]


def read_settings(kind: type[S], env: Mapping[str, str]) -> S:
    """Build a settings Struct from environment variables; empty ones count as absent."""
    present: dict[str, Any] = {}
    for field in msgspec.structs.fields(kind):
        text = env.get(field.encode_name, "").strip()
        if text:
            present[field.name] = _read(field.encode_name, text, field.type)
    return kind(**present)


def check_settings(settings: S) -> S:
    """Check settings whose values a program may have replaced; `SettingError`."""
    for field in msgspec.structs.fields(settings):
        rule, value = rule_of(field.type), getattr(settings, field.name)
        if rule is not None and value is not None and value != "" and not rule.check(value):
            raise wrong(field.encode_name, value, rule)
    return settings


def rule_of(annotation: Any) -> Any:
    """The rule for a field's values, or None."""
    if get_origin(annotation) is Annotated:
        return next((note for note in annotation.__metadata__ if hasattr(note, "check")), None)
    return next((rule for part in get_args(annotation) if (rule := rule_of(part)) is not None), None)


def wrong(name: str, value: object, expected: object) -> SettingError:
    """The error for one variable."""
    shown = repr(value[:MAX_SHOWN]) if isinstance(value, str) else value
    return SettingError(f"environment variable {name}={shown}: expected {expected}")


def is_true(text: str) -> bool:
    """How switches in the environment are read."""
    return text.strip().lower() in TRUE


def split_list(text: str) -> tuple[str, ...]:
    """The parts of a comma-separated variable, without surrounding blanks."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _read(name: str, text: str, annotation: Any) -> Any:
    rule = rule_of(annotation)
    if bool in (annotation, *get_args(annotation)):
        if not Switch().check(text):
            raise wrong(name, text, Switch())
        return is_true(text)
    try:
        value = msgspec.convert(text, annotation, strict=False)
    except (msgspec.ValidationError, OverflowError):
        raise wrong(name, text, rule) from None
    if rule is not None and not rule.check(value):
        raise wrong(name, value if len(text) <= MAX_SHOWN else text, rule)
    return value


def _plain(number: float) -> str:
    return str(int(number)) if number == int(number) else str(number)
