"""Durations as written in cozy.toml: `90s`, `10m`, `1h`, `7d`."""

import re

RULE = "a whole number and s, m, h or d, such as '10m'"
MAX_S = 365 * 24 * 3600
_FORM = re.compile(r"([0-9]{1,7})([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 24 * 3600}


def parse_duration(text: object) -> int:
    """Seconds, from 1 second to 365 days; `ValueError` says what was expected."""
    found = _FORM.fullmatch(text) if isinstance(text, str) else None
    seconds = int(found[1]) * _SECONDS[found[2]] if found is not None else 0
    if not 1 <= seconds <= MAX_S:
        raise ValueError(f"{text!r} must be {RULE}: from '1s' to '365d'")
    return seconds
