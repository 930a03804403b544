"""Payload constraints beyond types: `Annotated[int, Clamp(20, 50)]` moves a number into its range."""

import math
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Clamp:
    """Bounds that a number is moved into, instead of being refused.

    `cast`: `"int"` rounds half up (any other `round` truncates), `"float"` converts, `""` keeps the type of the input.
    NaN and infinities become `max`. Null, booleans and other non-numbers stay unchanged.
    """

    min: float
    max: float
    cast: str = ""
    round: str = "half_up"

    def __post_init__(self) -> None:
        if not self.min <= self.max:
            raise ValueError(f"Clamp(min={self.min}, max={self.max}): min must not be above max")
        if self.cast not in ("", "int", "float"):
            raise ValueError(f"Clamp(cast={self.cast!r}): expected 'int', 'float' or ''")
        if self.cast == "int" and not (math.isfinite(self.min) and math.isfinite(self.max)):
            raise ValueError(f"Clamp(min={self.min}, max={self.max}, cast='int'): whole numbers need finite bounds")

    def apply(self, value: Any) -> Any:
        """The value moved into the bounds."""
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return value
        finite = isinstance(value, int) or math.isfinite(value)  # isfinite cannot take 10**400
        number = min(max(value, self.min), self.max) if finite else self.max
        if number != value and isinstance(value, int) and float(number).is_integer():
            number = int(number)
        if self.cast == "int":
            return math.floor(number + 0.5) if self.round == "half_up" else math.trunc(number)
        return float(number) if self.cast == "float" else number
