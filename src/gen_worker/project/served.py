"""Loads the functions of a project folder or a baked manifest, ready to serve, in the dev runner and in a worker."""

from collections.abc import Mapping
from pathlib import Path

import msgspec

from gen_worker.authoring.signature import FunctionSpec
from gen_worker.project.baked import load_functions
from gen_worker.project.cozy_toml import find_cozy_toml
from gen_worker.project.discovery import DiscoveryError, add_to_path, discover
from gen_worker.project.manifest import read_manifest, with_settings
from gen_worker.project.validation import VersionError, version_problem
from gen_worker.refs import ModelSpec


class Served(msgspec.Struct, frozen=True):
    """Functions with their model keys, and the folder to watch for changes (None for a baked manifest). `problem`: why there are none."""

    endpoint_name: str
    functions: tuple[FunctionSpec, ...]
    models_by_function: Mapping[str, Mapping[str, ModelSpec]]
    watched: Path | None = None
    problem: str = ""


def check_version(root: Path, env: Mapping[str, str]) -> None:
    """`VersionError` when the project in `root` does not accept the installed gen-worker's version."""
    if problem := version_problem(root, env):
        raise VersionError(problem)


def load_project(root: Path, env: Mapping[str, str]) -> Served:
    """Functions of a project folder, discovered now."""
    check_version(root, env)
    found = discover(root, env)
    models = {spec.name: found.manifest.models_of(spec.name) for spec in found.specs}
    if not found.specs:
        raise DiscoveryError(f"no function marked with @worker_function() in {found.project.main}; mark one to serve it")
    settings = found.project.function_settings
    specs = tuple(with_settings(spec, settings.get(spec.name, {})) for spec in found.specs)
    return Served(found.project.endpoint_name, specs, models, root.resolve())


def load_baked(path: Path, root: Path, env: Mapping[str, str]) -> Served:
    """Functions named by a baked manifest, imported from `root`."""
    manifest = read_manifest(path)
    add_to_path(root.resolve())
    specs, models = load_functions(manifest, env)
    return Served(manifest.endpoint_name, specs, models)


def load_for_worker(root: Path, manifest: Path, env: Mapping[str, str], *, must_be_baked: bool) -> tuple[Path, Served]:
    """Functions of the baked manifest, otherwise of the project in `root`, with the path of the file that was read.
    `ValueError` says what is missing.
    """
    project = find_cozy_toml(root, env)
    if manifest.exists() or project is None or must_be_baked:
        return manifest, load_baked(manifest, root, env)
    return project, load_project(root, env)
