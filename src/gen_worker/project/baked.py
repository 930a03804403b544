"""Imports the functions named by a manifest."""

from collections.abc import Mapping

from gen_worker.authoring.signature import FunctionSpec
from gen_worker.contract.manifest import Manifest
from gen_worker.project.discovery import import_modules, read_specs
from gen_worker.project.manifest import with_settings
from gen_worker.project.variables import set_variables
from gen_worker.refs import ModelSpec


def load_functions(manifest: Manifest, env: Mapping[str, str]) -> tuple[tuple[FunctionSpec, ...], Mapping[str, Mapping[str, ModelSpec]]]:
    """Functions, and their model keys by function; `DiscoveryError` shows what cannot be imported. The manifest's
    variables are set first, except those in `env`.
    """
    set_variables(manifest.env or {}, env)
    specs = read_specs(import_modules(manifest.modules))
    settings = {entry.name: entry.resources for entry in manifest.entries}
    models = {spec.name: manifest.models_of(spec.name) for spec in specs}
    return tuple(with_settings(spec, settings.get(spec.name, {})) for spec in specs), models
