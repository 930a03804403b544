"""Checks that an endpoint's folder has everything a build needs."""

import tomllib
from collections.abc import Mapping
from pathlib import Path

import msgspec

from gen_worker.names import slugify
from gen_worker.project.constraints import constraint_satisfied
from gen_worker.project.cozy_toml import CozyTomlError, find_cozy_toml, load_cozy_toml
from gen_worker.project.origin import foreign_problem, installed_version


class VersionError(ValueError):
    """The project does not accept the installed gen-worker."""


class EndpointValidationResult(msgspec.Struct, frozen=True):
    """`ok` is True when there are no errors; warnings do not count."""

    ok: bool
    errors: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def validate_endpoint(root: str | Path, *, require_uv_lock: bool = False) -> EndpointValidationResult:
    """Check the files of an endpoint: Dockerfile, cozy.toml, pyproject.toml, uv.lock. Imports none of its code."""
    root = Path(root)
    errors: list[str] = [f"missing {name}" for name in ("Dockerfile", "cozy.toml", "pyproject.toml") if not (root / name).is_file()]
    warnings: list[str] = []
    if (root / "requirements.txt").exists():
        errors.append("the build does not use requirements.txt; declare dependencies in pyproject.toml and remove requirements.txt")
    if not (root / "uv.lock").is_file():
        if require_uv_lock:
            errors.append("missing uv.lock (required); make it with: uv lock")
        else:
            warnings.append("missing uv.lock: each build may resolve other versions; create it with: uv lock")
    if (root / "cozy.toml").is_file():
        try:
            load_cozy_toml(root / "cozy.toml")
        except CozyTomlError as exc:
            errors.extend(exc.each)
    if (root / "pyproject.toml").is_file():
        errors.extend(_pyproject_problems(root / "pyproject.toml"))
    return EndpointValidationResult(not errors, tuple(errors), tuple(warnings))


def _pyproject_problems(path: Path) -> list[str]:
    try:
        project = tomllib.loads(path.read_text()).get("project", {})
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        return [f"pyproject.toml: not valid TOML: {exc}"]
    name = project.get("name") if isinstance(project, dict) else None
    if not isinstance(name, str) or not name.strip():
        return ['missing [project].name in pyproject.toml; expected name = "my-worker"']
    try:
        slugify(name)
    except ValueError as exc:
        return [f"invalid [project].name in pyproject.toml: {exc}"]
    return []


def version_problem(root: Path, env: Mapping[str, str]) -> str | None:
    """Why the installed gen-worker cannot serve a project in `root`: it is another project's package, or a version that
    cozy.toml does not accept.

    A built image need not have a cozy.toml; then only the first reason applies.
    """
    if problem := foreign_problem():
        return problem
    found = find_cozy_toml(root, env)
    if found is None:
        return None
    constraint = load_cozy_toml(found).gen_worker
    version = installed_version()
    if version is None or constraint_satisfied(constraint, version):
        return None
    fix = "install a matching one from its clone or git address, or correct gen_worker in cozy.toml"
    return f"gen-worker {version} does not satisfy gen_worker = {constraint!r} in {found}; {fix}"
