"""Where in a payload a form field belongs, by its name: `prompt`, `tags[0]`, `options.masks[1].image`.

One rule for the forms of the dev runner and the control plane, and for `cozyctl run -i`.
"""

import re
from typing import Any

_STEP = re.compile(r"([^.\[\]]+)|\[([0-9]{1,6})\]")
_MAX_DEPTH = 100


class FormFieldError(ValueError):
    """A field that does not fit the payload; the message names it."""


def steps_of(name: str) -> list[str | int]:
    """`options.masks[0]` as `["options", "masks", 0]`; `FormFieldError` when the name is malformed."""
    steps = [step[0] or int(step[1]) for step in _STEP.findall(name)]
    rebuilt = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps).lstrip(".")
    if len(steps) > _MAX_DEPTH:
        raise FormFieldError(f"field name {name[:100]!r}...: at most {_MAX_DEPTH} steps")
    if not steps or rebuilt != name:
        raise FormFieldError(f"field name {name[:100]!r}: expected a path such as image, images[0] or options.mask")
    return steps


def place(payload: Any, name: str, value: Any) -> None:
    """Put `value` where `name` points. Objects and lists on the way are created; a list grows by one item at most.
    `FormFieldError` when the payload has something else there.
    """
    steps = steps_of(name)
    here = payload
    for index, step in enumerate(steps):
        last = index == len(steps) - 1
        empty: Any = value if last else [] if isinstance(steps[index + 1], int) else {}
        if isinstance(step, int) and isinstance(here, list) and step <= len(here):
            if step == len(here):
                here.append(empty)
            elif last:
                here[step] = empty
        elif isinstance(step, str) and isinstance(here, dict):
            if last:
                here[step] = empty
            else:
                here.setdefault(step, empty)
        else:
            raise FormFieldError(f"field {name[:100]!r} does not fit the payload sent with it")
        here = here[step]
