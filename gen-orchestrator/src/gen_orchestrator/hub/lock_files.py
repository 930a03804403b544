"""Reads from `uv.lock` which packages a project needs on this machine, with versions and hashes.

The lock contains packages for all machines and for all groups. The packages needed here are found by following the
project's dependencies, and their dependencies, whose markers are true. gen-worker is left out: a platform installs its
own.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
from packaging.markers import InvalidMarker, Marker, default_environment
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name

from gen_worker.project.toml_files import read_toml, tables

NAME = "uv.lock"
OWN = "gen-worker"


class LockError(ValueError):
    """The lock file cannot be used; the message says why, and what helps."""


class Pinned(msgspec.Struct, frozen=True, order=True):
    """One package. `hashes` as pip writes them, `sha256:<hex>`; none if the lock file has none."""

    name: str
    version: str
    hashes: tuple[str, ...] = ()

    def requirement(self) -> str:
        return f"{self.name}=={self.version}"

    def hashed(self) -> str:
        """A line of a requirements file."""
        return " ".join([self.requirement(), *(f"--hash={each}" for each in self.hashes)])


def pinned_in(source: Path, wanted: tuple[str, ...], environment: Mapping[str, str] | None = None) -> list[Pinned] | None:
    """What the project in `source` runs with, sorted; None when it has no lock file. `wanted`: names in its
    pyproject.toml. `environment`: values of markers, by default this interpreter's. `LockError` for a lock file that is
    outdated, or names something that is not on an index.
    """
    if not (source / NAME).is_file():
        return None
    lock = read_toml(source / NAME)
    if lock.get("version") != 1:
        raise LockError(f"{NAME} cannot be read, or its version is not 1: write it again with `uv lock`")
    markers = {**default_environment(), **(environment or {}), "extra": ""}
    _check_python(lock, str(markers["python_full_version"]))
    packages = tables(lock, "package")
    project = _project(packages, str(read_toml(source / "pyproject.toml").get("project", {}).get("name", "")))
    missing = sorted(set(wanted) - {canonicalize_name(str(each.get("name", ""))) for each in tables(project, "dependencies")})
    if missing:
        raise LockError(f"{NAME} does not have {', '.join(missing)}, which pyproject.toml names: write it again with `uv lock`")
    found: dict[str, Pinned] = {}
    seen: set[tuple[str, str, str]] = set()
    waiting = list(_needs(project, (), markers))
    while waiting:
        need = waiting.pop()
        package = _package(packages, need)
        name = canonicalize_name(str(package["name"]))
        extras = tuple(str(each) for each in need.get("extra", ()))
        news = [extra for extra in ("", *extras) if (name, str(package.get("version")), extra) not in seen]
        if name == OWN or not news:
            continue
        seen.update((name, str(package.get("version")), extra) for extra in news)
        found[name] = _pinned(name, package)
        waiting += _needs(package, tuple(extra for extra in news if extra), markers, own="" in news)
    return sorted(found.values())


def _check_python(lock: Mapping[str, Any], version: str) -> None:
    text = str(lock.get("requires-python", ""))
    try:
        holds = SpecifierSet(text).contains(version, prereleases=True)
    except InvalidSpecifier:
        raise LockError(f"{NAME}: requires-python {text[:60]!r} is not a version specifier") from None
    if not holds:
        raise LockError(f"{NAME} is for Python {text}; this platform runs {version}")


def _project(packages: list[dict[str, Any]], name: str) -> dict[str, Any]:
    own = [each for each in packages if {"virtual", "editable", "directory"} & _source(each).keys()]
    named = [each for each in own if canonicalize_name(str(each.get("name", ""))) == canonicalize_name(name)]
    roots = named or [each for each in own if "." in _source(each).values()]
    if not roots:
        raise LockError(f"{NAME} does not have the project {name!r} itself: write it again with `uv lock`")
    return roots[0]


def _source(package: Mapping[str, Any]) -> dict[str, Any]:
    found = package.get("source", {})
    return found if isinstance(found, dict) else {}


def _needs(package: dict[str, Any], extras: tuple[str, ...], markers: dict[str, Any], *, own: bool = True) -> Iterator[dict[str, Any]]:
    """Its dependencies that apply here, and those of these extras."""
    optional = package.get("optional-dependencies", {})
    listed = tables(package, "dependencies") if own else []
    for extra in extras:
        listed = listed + tables(optional if isinstance(optional, dict) else {}, extra)
    for need in listed:
        try:
            if "marker" not in need or Marker(str(need["marker"])).evaluate(markers):
                yield need
        except InvalidMarker:
            raise LockError(f"{NAME}: the marker {str(need['marker'])[:100]!r} of {need.get('name')} is none") from None


def _package(packages: list[dict[str, Any]], need: Mapping[str, Any]) -> dict[str, Any]:
    """The entry for a dependency; if the lock file has a package in several versions, the dependency names one."""
    fits = [
        each
        for each in packages
        if each.get("name") == need.get("name")
        and ("version" not in need or each.get("version") == need["version"])
        and ("source" not in need or each.get("source") == need["source"])
    ]
    if len(fits) != 1:
        raise LockError(f"{NAME} has {len(fits)} entries for {need.get('name')!r}; expected one: write it again with `uv lock`")
    return fits[0]


def _pinned(name: str, package: Mapping[str, Any]) -> Pinned:
    source = _source(package)
    if "registry" not in source:
        kind = next(iter(source), "nothing")
        raise LockError(
            f"{NAME} takes {name} from {kind} ({str(source.get(kind, ''))[:100]}); a platform only installs packages from an index"
        )
    files = [*tables(dict(package), "wheels"), *([package["sdist"]] if isinstance(package.get("sdist"), dict) else [])]
    hashes = tuple(sorted({str(each["hash"]) for each in files if "hash" in each}))
    return Pinned(name, str(package.get("version", "")), hashes)
