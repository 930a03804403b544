"""Version constraints of cozy.toml: `>=0.2.0,<0.3.0`. Numbers only, no pre-releases, no wildcards."""

import re
from itertools import zip_longest

_CLAUSE = re.compile(r"(>=|<=|==|~=|>|<)?\s*(\d+(?:\.\d+)*)")


def parse_constraint(spec: str, what: str) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """Clauses of a constraint; `ValueError` names an invalid one. `what` is its key, for the message."""
    if not spec.strip():
        raise ValueError(f"{what} constraint cannot be empty; expected clauses such as '>=0.2.0,<0.3.0'")
    clauses = []
    for clause in spec.split(","):
        found = _CLAUSE.fullmatch(clause.strip())
        if found is None or (found[1] == "~=" and "." not in found[2]):
            raise ValueError(
                f"invalid {what} constraint clause {clause.strip()!r}; expected >= <= == ~= > < and numbers, such as '>=0.2.0'"
            )
        clauses.append((found[1] or "==", tuple(map(int, found[2].split(".")))))
    return tuple(clauses)


def constraint_satisfied(spec: str, version: str) -> bool:
    """Whether `version` (its leading numbers) meets every clause; every version meets an empty constraint."""
    leading = re.match(r"\d+(?:\.\d+)*", version.strip())
    have = tuple(map(int, leading[0].split("."))) if leading else ()
    return not spec.strip() or all(_holds(op, have, want) for op, want in parse_constraint(spec, "version"))


def _holds(op: str, have: tuple[int, ...], want: tuple[int, ...]) -> bool:
    order = _compare(have, want)
    match op:
        case ">=":
            return order >= 0
        case "<=":
            return order <= 0
        case ">":
            return order > 0
        case "<":
            return order < 0
        case "~=":  # compatible release: ~=1.4.5 is >=1.4.5 and <1.5
            return order >= 0 and _compare(have[: len(want) - 1], want[:-1]) == 0
        case _:
            return order == 0


def _compare(left: tuple[int, ...], right: tuple[int, ...]) -> int:
    for a, b in zip_longest(left, right, fillvalue=0):
        if a != b:
            return 1 if a > b else -1
    return 0
