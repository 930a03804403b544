"""Where models come from and where they are stored."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Self

import msgspec

from gen_worker.refs import DTYPES
from gen_worker.settings.reading import Flag, Gigabytes, Range, Url, read_settings, split_list, wrong

LOCAL_CACHE_DIR = "/tmp/tensorhub/local-model-cache"  # noqa: S108 - as published workers have it


class ModelSettings(msgspec.Struct, frozen=True, kw_only=True, rename="upper"):
    """Where models come from and where they are stored. Sizes in GB of 10^9 bytes."""

    tensorhub_cache_dir: str = "~/.cache/tensorhub"
    worker_local_model_cache_dir: str = LOCAL_CACHE_DIR
    worker_local_cache_gb: Gigabytes = 100.0
    worker_max_concurrent_downloads: Annotated[int, Range(1, 64, "a whole number")] = 2
    worker_model_cache_gb: Gigabytes = 0.0
    worker_min_free_disk_gb: Gigabytes = 1.0
    worker_load_ahead: Flag = "1"
    cozy_hub_url: Url = ""
    cozy_hub_token: str = ""
    worker_allow_cozy_hub_api_resolve: Flag = ""
    hf_token: str = ""
    hugging_face_hub_token: str = ""
    huggingface_token: str = ""
    huggingfacehub_api_token: str = ""
    hf_token_path: str = ""
    hf_hub_disable_implicit_token: str = ""
    hf_endpoint: Url = ""
    hf_home: str = ""
    hf_hub_cache: str = ""
    huggingface_hub_cache: str = ""
    xdg_cache_home: str = ""
    hf_hub_offline: str = ""
    transformers_offline: str = ""
    cozy_hf_components: str = ""
    cozy_hf_include_optional_components: Flag = ""
    cozy_hf_weight_precisions: str = ""
    cozy_hf_allow_root_json: Flag = ""
    cozy_hf_full_repo_download: Flag = ""
    model_manager_class: str = ""
    cozy_model_overrides: str = ""
    cozy_near_blobs: str = ""
    cozy_models_owner: str = ""
    cozy_hf_max_gb: Gigabytes = 30.0

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Self:
        """Read the variables; `SettingError` names the one that is wrong."""
        settings = read_settings(cls, env)
        if env.get("WORKER_LOCAL_MODEL_CACHE_DIR") == "":  # set to an empty value: no local copies
            settings = msgspec.structs.replace(settings, worker_local_model_cache_dir="")
        # huggingface_hub replaces `$NAME` in its folders; nothing below here reads the environment.
        folders = ("hf_home", "hf_hub_cache", "hf_token_path")
        settings = msgspec.structs.replace(settings, **{name: _with_variables(getattr(settings, name), env) for name in folders})
        for part in split_list(settings.cozy_hf_weight_precisions):
            if part not in DTYPES:
                raise wrong("COZY_HF_WEIGHT_PRECISIONS", part, f"some of {', '.join(DTYPES)}")
        return settings

    @property
    def cas_root(self) -> Path:
        return Path(self.tensorhub_cache_dir).expanduser() / "cas"


def _with_variables(text: str, env: Mapping[str, str]) -> str:
    return re.sub(r"\$(\w+)|\$\{([^}]*)\}", lambda found: env.get(found[1] or found[2], found[0]), text, flags=re.ASCII)
