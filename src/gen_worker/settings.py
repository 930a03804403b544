"""Every knob of a worker process, read once from the environment that a root hands in."""

from collections.abc import Mapping
from typing import Any, Self, TypeVar

import msgspec

S = TypeVar("S", bound=msgspec.Struct)


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
