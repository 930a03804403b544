"""Checks before a worker connects: it is better to fail at once, with the reason, than in the first run."""

from pathlib import Path

from gen_worker.net.jwks import JwksSettings, JwksVerifier
from gen_worker.runtime.startup import Startup
from gen_worker.settings import SettingError, WorkerSettings
from gen_worker.shared_files import make_writable


def check_cache_folders(folders: list[str], startup: Startup) -> None:
    """Try to write in each folder; `SettingError` names the one where it fails. Each check is a phase of the start."""
    for folder in folders:
        startup.phase("cache_preflight_started", "starting", path=folder)
        try:
            make_writable(Path(folder))
        except OSError as exc:
            error = SettingError(
                f"the folder {folder!r} cannot be written: {exc.strerror}; choose another with TENSORHUB_CACHE_DIR, "
                "WORKER_LOCAL_MODEL_CACHE_DIR or WORKER_CACHE_DIR"
            )
            startup.phase("cache_preflight_failed", "error", path=folder, detail=str(error))
            raise error from None
        startup.phase("cache_preflight_ok", path=folder)


def verify_token(settings: WorkerSettings) -> None:
    """Check WORKER_JWT against SCHEDULER_JWKS_URL if that is set; `AuthError` says what is wrong."""
    if settings.scheduler_jwks_url:
        jwks = JwksSettings(
            settings.scheduler_jwks_url,
            settings.scheduler_jwt_issuer,
            settings.scheduler_jwt_audience,
            settings.scheduler_jwks_ttl_seconds,
        )
        JwksVerifier(jwks, "WORKER_JWT").verify(settings.worker_jwt.strip())
