"""Public module: `PipelineLoader`, diffusers pipelines for programs without a worker."""

import os

from gen_worker.authoring.model_interface import ModelDownloader
from gen_worker.residency import pipeline_loader
from gen_worker.settings import DeviceSettings, ModelSettings

__all__ = ["PipelineLoader"]


class PipelineLoader(pipeline_loader.PipelineLoader):
    """A pipeline loader for a program of its own. The program is the root, so arguments that are left out are read from
    the environment.

    Use it on one event loop. Pipelines stay loaded until their room is needed; pipelines with equal components share
    them. `SettingError` (a `ValueError`) for an invalid variable.
    """

    def __init__(
        self,
        models_dir: str | None = None,
        local_cache_dir: str | None = None,
        max_vram_gb: float | None = None,
        vram_safety_margin_gb: float = 3.5,
        cozy_hub_url: str | None = None,
        cozy_hub_token: str | None = None,
        downloader: ModelDownloader | None = None,
    ) -> None:
        given = {
            "TENSORHUB_CACHE_DIR": models_dir,
            "WORKER_LOCAL_MODEL_CACHE_DIR": local_cache_dir,
            "COZY_HUB_URL": cozy_hub_url,
            "COZY_HUB_TOKEN": cozy_hub_token,
        }
        env = {**os.environ, **{name: value for name, value in given.items() if value is not None}}
        super().__init__(
            ModelSettings.from_env(env), DeviceSettings.from_env(env), max_vram_gb, vram_safety_margin_gb, downloader=downloader
        )
