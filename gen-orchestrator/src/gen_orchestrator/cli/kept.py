"""What the environment and the options of `up` and `serve` say of files that are kept, and of models that are mirrored."""

import os
from pathlib import Path

import click
import msgspec

from gen_orchestrator.hub.blobs import open_blobs
from gen_orchestrator.hub.retention import RetentionSettings
from gen_worker.settings import ModelSettings
from gen_worker.settings.reading import SettingError, read_settings


def kept(blobs: str) -> RetentionSettings:
    """What is kept, where and for how long: of the environment, and of `--blobs`. Usage error for what cannot be."""
    try:
        found = read_settings(RetentionSettings, os.environ)
        settings = msgspec.structs.replace(found, gen_orchestrator_blobs=blobs or found.gen_orchestrator_blobs)
        open_blobs(settings.gen_orchestrator_blobs, Path())  # whether there is such a place shows the first file
    except (SettingError, ValueError) as exc:
        raise click.UsageError(str(exc)) from None
    return settings


def mirror_of(wanted: bool) -> ModelSettings | None:
    """The account that fetches models of Hugging Face, of the environment. Usage error for a setting that is none."""
    try:
        return ModelSettings.from_env(os.environ) if wanted else None
    except (SettingError, ValueError) as exc:
        raise click.UsageError(str(exc)) from None
