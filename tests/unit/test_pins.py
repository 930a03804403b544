"""constraints.txt agrees with what needs its packages, so that an environment can be made from nothing.

A pin that another package's requirement excludes is noticed only when somebody installs into an empty environment: here it is compared, without a
network, with the requirements of every installed distribution and of both `pyproject.toml`. CI starts from an empty environment besides.
"""

import re
import tomllib
from collections.abc import Iterator
from importlib.metadata import Distribution, distribution, distributions
from itertools import chain
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
OURS = {"gen-worker", "gen-orchestrator"}
PROJECTS = [ROOT / "pyproject.toml", ROOT / "gen-orchestrator" / "pyproject.toml"]


def pins(text: str) -> dict[str, Version]:
    found = [line.partition("==") for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return {canonicalize_name(name): Version(version) for name, _, version in found}


def declared() -> Iterator[tuple[str, Requirement]]:
    """What both distributions ask for, with all their extras."""
    for path in PROJECTS:
        project = tomllib.loads(path.read_text())["project"]
        for text in chain(project["dependencies"], *project.get("optional-dependencies", {}).values()):
            yield project["name"], Requirement(text)


def required_by(found: Distribution, extras: set[str]) -> Iterator[Requirement]:
    for text in found.requires or ():
        requirement = Requirement(text)
        if requirement.marker is None or any(requirement.marker.evaluate({"extra": extra}) for extra in {"", *extras}):
            yield requirement


def quarrels(pinned: dict[str, Version], wanted: Iterator[tuple[str, Requirement]]) -> list[str]:
    """Pins that somebody's requirement excludes."""
    return sorted(
        {
            f"{canonicalize_name(need.name)}=={version}, but {who} needs {need}"
            for who, need in wanted
            if (version := pinned.get(canonicalize_name(need.name))) and not need.specifier.contains(version, prereleases=True)
        }
    )


def needs_of_installed() -> Iterator[tuple[str, Requirement]]:
    for found in distributions():
        name = canonicalize_name(found.metadata["Name"])
        if name not in OURS:  # theirs is read from pyproject.toml: what is installed may be older
            for need in required_by(found, set()):
                yield f"{name} {found.version}", need


PINNED = pins((ROOT / "constraints.txt").read_text())


def test_no_pin_contradicts_what_is_declared_or_installed() -> None:
    assert quarrels(PINNED, declared()) == []
    of_pinned = ((who, need) for who, need in needs_of_installed() if PINNED.get(who.split()[0]) == Version(who.split()[1]))
    assert quarrels(PINNED, of_pinned) == []


def test_what_the_extras_bring_is_pinned() -> None:
    """All of it, however deep: otherwise an environment of tomorrow differs from today's."""
    waiting = [need for _, need in declared()]
    seen: set[tuple[str, str]] = set()
    free = set()
    while waiting:
        need = waiting.pop()
        name = canonicalize_name(need.name)
        if name in OURS or (need.marker and not need.marker.evaluate({"extra": ""})):
            continue
        key = name, ",".join(sorted(need.extras))
        if key in seen:
            continue
        seen.add(key)
        try:
            found = distribution(name)
        except ModuleNotFoundError:
            continue  # what an environment does not have, another checks
        if name not in PINNED:
            free.add(name)
        if name != "torch":  # its wheel for the processor needs less than its metadata of another build says
            waiting += required_by(found, set(need.extras))
    assert not free, "add to constraints.txt: " + ", ".join(sorted(free))


def test_lines_are_pins_in_order() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[^\s;#]+", line) for line in lines)
    assert len(PINNED) == len(lines), "each once"


@pytest.mark.parametrize(("need", "expected"), [("typer>0.6,<0.17", 1), ("typer>=0.27", 0), ("typer[all]", 0), ("other<1", 0)])
def test_a_wrong_pin_is_noticed(need: str, expected: int) -> None:
    assert len(quarrels({"typer": Version("0.27.3")}, iter([("somebody", Requirement(need))]))) == expected
