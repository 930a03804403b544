"""Every knob of a worker process, read once from the environment that a root hands in."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self, TypeVar

import msgspec

from gen_worker.refs import DTYPES

S = TypeVar("S", bound=msgspec.Struct)
LOCAL_CACHE_DIR = "/tmp/tensorhub/local-model-cache"  # noqa: S108 - as published workers have it


class SettingError(ValueError):
    """An environment variable holds something that cannot be used."""


class RunLimits(msgspec.Struct, frozen=True, kw_only=True, rename="upper"):
    """Bounds of one run, in bytes and counts; 0 means no limit."""

    worker_max_concurrency: int = 0
    worker_max_input_bytes: int = 0
    worker_max_output_bytes: int = 0
    worker_max_upload_bytes: int | None = None
    worker_max_output_file_bytes: int = 200 * 1024 * 1024
    worker_max_input_file_bytes: int = 200 * 1024 * 1024
    worker_max_output_delta_bytes: int = 65536
    worker_max_output_delta_events: int = 0
    worker_download_retries: int = 3

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Self:
        """Read the variables; `SettingError` names the one that is wrong."""
        return read_settings(cls, env)

    @property
    def upload_bytes(self) -> int:
        """The largest file that a function may save: WORKER_MAX_UPLOAD_BYTES, else WORKER_MAX_OUTPUT_FILE_BYTES."""
        if self.worker_max_upload_bytes is not None:
            return max(0, self.worker_max_upload_bytes)
        return max(0, self.worker_max_output_file_bytes)


class WorkerSettings(msgspec.Struct, frozen=True, kw_only=True, rename="upper"):
    """What a worker on the wire is told by its environment. Durations in seconds; 0 switches a limit or watchdog off."""

    scheduler_public_addr: str = ""
    scheduler_addrs: str = ""
    worker_jwt: str = ""
    use_tls: bool | None = None
    scheduler_tls_ca_file: str = ""
    scheduler_tls_server_name: str = ""
    scheduler_tls_cert_file: str = ""
    scheduler_tls_key_file: str = ""
    scheduler_jwks_url: str = ""
    scheduler_jwt_issuer: str = ""
    scheduler_jwt_audience: str = ""
    scheduler_jwks_ttl_seconds: float = 300.0
    reconnect_delay: float = 5.0
    reconnect_max_delay: float = 60.0
    reconnect_jitter_seconds: float = 1.0
    max_reconnect_attempts: int = 0
    worker_heartbeat_s: float = 10.0
    worker_register_timeout_s: float = 90.0
    worker_drain_timeout_seconds: float = 0.0
    worker_warn_model_resolve_s: float = 30.0
    worker_warn_model_load_s: float = 60.0
    worker_warn_inference_s: float = 60.0
    worker_max_message_bytes: int = 16 << 20
    worker_max_ws_frame_bytes: int = 0
    worker_run_dir: str = ""
    worker_cache_dir: str = ""
    file_api_base_url: str = ""
    file_api_token: str = ""
    orchestrator_http_url: str = ""
    cozy_hub_url: str = ""
    cozy_hub_token: str = ""
    runpod_pod_id: str = ""

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Self:
        """Read the variables; `SettingError` names the one that is wrong."""
        settings = read_settings(cls, env)
        for name in ("reconnect_delay", "reconnect_max_delay", "reconnect_jitter_seconds", "worker_drain_timeout_seconds"):
            value = getattr(settings, name)
            if not 0 <= value < float("inf"):
                raise SettingError(f"environment variable {name.upper()}={value}: expected seconds from 0 up")
        if not 0 < settings.worker_heartbeat_s < float("inf"):
            raise SettingError(f"environment variable WORKER_HEARTBEAT_S={settings.worker_heartbeat_s}: expected seconds above 0")
        if settings.worker_max_message_bytes < 64 << 10:
            raise SettingError(
                f"environment variable WORKER_MAX_MESSAGE_BYTES={settings.worker_max_message_bytes}: expected at least 65536"
            )
        return settings

    @property
    def files_base(self) -> str:
        """Where files are saved if a run does not say: the first of FILE_API_BASE_URL, ORCHESTRATOR_HTTP_URL, COZY_HUB_URL."""
        return self.file_api_base_url or self.orchestrator_http_url or self.cozy_hub_url

    @property
    def files_token(self) -> str:
        return self.file_api_token or self.cozy_hub_token


class ModelSettings(msgspec.Struct, frozen=True, kw_only=True, rename="upper"):
    """Where models come from and where they are kept. Sizes in GB of 10^9 bytes."""

    tensorhub_cache_dir: str = "~/.cache/tensorhub"
    worker_local_model_cache_dir: str = LOCAL_CACHE_DIR
    worker_local_cache_gb: float = 100.0
    worker_max_concurrent_downloads: int = 2
    worker_model_cache_gb: float = 0.0
    worker_min_free_disk_gb: float = 1.0
    worker_load_ahead: str = "1"
    cozy_hub_url: str = ""
    cozy_hub_token: str = ""
    worker_allow_cozy_hub_api_resolve: str = ""
    hf_token: str = ""
    hugging_face_hub_token: str = ""
    huggingface_token: str = ""
    huggingfacehub_api_token: str = ""
    hf_token_path: str = ""
    hf_hub_disable_implicit_token: str = ""
    hf_endpoint: str = ""
    hf_home: str = ""
    hf_hub_cache: str = ""
    huggingface_hub_cache: str = ""
    xdg_cache_home: str = ""
    hf_hub_offline: str = ""
    transformers_offline: str = ""
    cozy_hf_components: str = ""
    cozy_hf_include_optional_components: str = ""
    cozy_hf_weight_precisions: str = ""
    cozy_hf_allow_root_json: str = ""
    cozy_hf_full_repo_download: str = ""
    cozy_hf_max_gb: float = 30.0

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Self:
        """Read the variables; `SettingError` names the one that is wrong."""
        settings = read_settings(cls, env)
        if env.get("WORKER_LOCAL_MODEL_CACHE_DIR") == "":  # set, and to nothing: no local copies
            settings = msgspec.structs.replace(settings, worker_local_model_cache_dir="")
        # huggingface_hub replaces `$NAME` in its folders; nothing below here reads the environment.
        folders = ("hf_home", "hf_hub_cache", "hf_token_path")
        settings = msgspec.structs.replace(settings, **{name: _with_variables(getattr(settings, name), env) for name in folders})
        for part in split_list(settings.cozy_hf_weight_precisions):
            if part not in DTYPES:
                raise SettingError(f"environment variable COZY_HF_WEIGHT_PRECISIONS names {part!r}; expected some of {', '.join(DTYPES)}")
        return settings

    @property
    def cas_root(self) -> Path:
        return Path(self.tensorhub_cache_dir).expanduser() / "cas"


def _with_variables(text: str, env: Mapping[str, str]) -> str:
    return re.sub(r"\$(\w+)|\$\{([^}]*)\}", lambda found: env.get(found[1] or found[2], found[0]), text, flags=re.ASCII)


def is_true(text: str) -> bool:
    """How switches in the environment are read."""
    return text.strip().lower() in ("1", "true", "yes", "on", "y", "t")


def read_settings(kind: type[S], env: Mapping[str, str]) -> S:
    """Build a settings Struct from environment variables; empty ones count as absent."""
    present: dict[str, Any] = {}
    for field in msgspec.structs.fields(kind):
        text = env.get(field.encode_name, "").strip()
        if not text:
            continue
        try:
            present[field.encode_name] = msgspec.convert(text, field.type, strict=False)
        except msgspec.ValidationError as exc:
            raise SettingError(f"environment variable {field.encode_name}={text!r}: {exc}") from None
    return msgspec.convert(present, kind, strict=False)


def split_list(text: str) -> tuple[str, ...]:
    """The parts of a comma-separated variable, blanks dropped."""
    return tuple(part.strip() for part in text.split(",") if part.strip())
