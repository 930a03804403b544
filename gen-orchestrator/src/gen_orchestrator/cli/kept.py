"""Settings of `up` and `serve` about stored files and mirrored models, from the environment and options."""

import os
from pathlib import Path

import click
import msgspec

from gen_orchestrator.hub.blobs import open_blobs
from gen_orchestrator.hub.retention import RetentionSettings
from gen_worker.settings import ModelSettings
from gen_worker.settings.reading import SettingError, read_settings


def kept(blobs: str) -> RetentionSettings:
    """What is stored, where and for how long: from the environment and `--blobs`. Usage error for an invalid value."""
    try:
        found = read_settings(RetentionSettings, os.environ)
        settings = msgspec.structs.replace(found, gen_orchestrator_blobs=blobs or found.gen_orchestrator_blobs)
        open_blobs(
            settings.gen_orchestrator_blobs, Path(), os.environ
        )  # checks the form only; whether the place exists shows with the first file
    except (SettingError, ValueError) as exc:
        raise click.UsageError(str(exc)) from None
    return settings


def mirror_of(wanted: bool) -> ModelSettings | None:
    """The account that fetches models of Hugging Face, from the environment. Usage error for an invalid setting."""
    try:
        return ModelSettings.from_env(os.environ) if wanted else None
    except (SettingError, ValueError) as exc:
        raise click.UsageError(str(exc)) from None
