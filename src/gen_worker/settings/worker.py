"""Limits of a worker's runs, and what it needs to reach its scheduler."""

from collections.abc import Mapping
from typing import Annotated, Self

import msgspec

from gen_worker.settings.reading import WEEK_S, Bytes, Count, FileBytes, Range, Seconds, Url, read_settings

_MESSAGE_BYTES = (1 << 31) - 1  # gRPC counts in 32 bits
_Watchdog = Annotated[float, Range(-1, WEEK_S, "seconds", "off")]


class RunLimits(msgspec.Struct, frozen=True, kw_only=True, rename="upper"):
    """Limits of one run, in bytes and counts; 0 means no limit."""

    worker_max_concurrency: Count = 0
    worker_max_input_bytes: Bytes = 0
    worker_max_output_bytes: Bytes = 0
    worker_max_upload_bytes: FileBytes | None = None
    worker_max_output_file_bytes: FileBytes = 200 * 1024 * 1024
    worker_max_input_file_bytes: FileBytes = 200 * 1024 * 1024
    worker_max_output_delta_bytes: Bytes = 65536
    worker_max_output_delta_events: Count = 0
    worker_max_ws_frame_bytes: Annotated[int, Range(0, _MESSAGE_BYTES, "bytes", "no limit")] = 0
    worker_download_retries: Annotated[int, Range(0, 100, "a whole number")] = 3

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
    """The settings of a worker on the wire. Durations in seconds; 0 turns off a limit or watchdog."""

    scheduler_public_addr: str = ""
    scheduler_addrs: str = ""
    worker_jwt: str = ""
    use_tls: bool | None = None
    scheduler_tls_ca_file: str = ""
    scheduler_tls_server_name: str = ""
    scheduler_tls_cert_file: str = ""
    scheduler_tls_key_file: str = ""
    scheduler_jwks_url: Url = ""
    scheduler_jwt_issuer: str = ""
    scheduler_jwt_audience: str = ""
    scheduler_jwks_ttl_seconds: Seconds = 300.0
    reconnect_delay: Seconds = 5.0
    reconnect_max_delay: Seconds = 60.0
    reconnect_jitter_seconds: Seconds = 1.0
    max_reconnect_attempts: Count = 0
    worker_heartbeat_s: Annotated[float, Range(0.01, 3600, "seconds")] = 10.0
    worker_register_timeout_s: Annotated[float, Range(0, WEEK_S, "seconds", "off")] = 90.0
    worker_drain_timeout_seconds: Seconds = 0.0
    worker_warn_model_resolve_s: _Watchdog = 30.0
    worker_warn_model_load_s: _Watchdog = 60.0
    worker_warn_inference_s: _Watchdog = 60.0
    worker_max_message_bytes: Annotated[int, Range(64 << 10, _MESSAGE_BYTES, "bytes")] = 16 << 20
    worker_run_dir: str = ""
    worker_cache_dir: str = ""
    file_api_base_url: Url = ""
    file_api_token: str = ""
    orchestrator_http_url: Url = ""
    cozy_hub_url: Url = ""
    cozy_hub_token: str = ""
    runpod_pod_id: str = ""

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Self:
        """Read the variables; `SettingError` names the one that is wrong."""
        return read_settings(cls, env)

    @property
    def files_base(self) -> str:
        """Where files are saved if a run does not say: the first of FILE_API_BASE_URL, ORCHESTRATOR_HTTP_URL,
        COZY_HUB_URL that is set.
        """
        return self.file_api_base_url or self.orchestrator_http_url or self.cozy_hub_url

    @property
    def files_token(self) -> str:
        """The token for it, if a run has none: FILE_API_TOKEN, else COZY_HUB_TOKEN."""
        return self.file_api_token or self.cozy_hub_token
