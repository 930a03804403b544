"""Interfaces that programs may implement to replace our parts: a manager that loads models its own way, a downloader
that fetches them.
"""

import threading
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit


class ModelManager(ABC):
    """Loads models in place of the built-in loaders. Pass it to `Worker(model_manager=...)`, or name it in
    MODEL_MANAGER_CLASS=module:Class.

    Methods are called from threads, one load of a model at a time; they may be `async`. If the object has
    `get_for_inference(model_ref)`, each run gets its result, which must not share state with other runs.
    """

    @abstractmethod
    def load(self, model_ref: str, local_path: str | None = None, **opts: Any) -> Any:
        """The loaded model, or None to leave it to the built-in loaders. `local_path` is the folder of its files;
        `opts` contains `device` and `dtypes`.
        """

    @abstractmethod
    def get(self, model_ref: str) -> Any | None:
        """A loaded model, else None."""

    @abstractmethod
    def unload(self, model_ref: str) -> None:
        """Unload a model: the ledger needs its room, or a user asked for it."""

    @abstractmethod
    def stats(self) -> dict[str, Any]:
        """Any state worth showing."""


class ModelManagementInterface(ABC):
    """The other form of a model manager, used by projects for published workers. It is plugged in the same way as
    `ModelManager`.

    It may also have `unload(model_id)`. Sizes are measured; `model_sizes` is not read.
    """

    @abstractmethod
    async def process_supported_models_config(self, supported_model_ids: list[str], downloader_instance: Any) -> None:
        """Not called: models and their files come from `[models]`, when a function needs them."""

    @abstractmethod
    async def load_model_into_vram(self, model_id: str) -> bool:
        """Load a model; False leaves it to the built-in loaders."""

    @abstractmethod
    async def get_active_pipeline(self, model_id: str) -> Any | None:
        """A loaded model, else None."""

    @abstractmethod
    async def get_active_model_bundle(self, model_id: str) -> Any | None:
        """Not called: several models of a function are several parameters."""

    @abstractmethod
    def get_vram_loaded_models(self) -> list[str]:
        """The ids of the loaded models."""

    def get_for_inference(self, model_id: str) -> Any | None:
        """The object for one run, which must not share state with other runs. None: the loaded model itself."""
        return None


class ModelDownloader(ABC):
    """Fetches models in place of the built-in sources; `Worker(downloader=...)`."""

    @abstractmethod
    def download(self, model_ref: str, dest_dir: str, filename: str | None = None) -> str:
        """Fetch a model below `dest_dir` and return its path. Blocking; an awaitable is awaited. Called by one thread
        at a time for each model.
        """


class CozyHubDownloader(ModelDownloader):
    """Downloads files below one base URL. The token is sent to that host only; a full URL is fetched as given, without
    the token if it is on another host.
    """

    def __init__(self, base_url: str, token: str | None = None, timeout_seconds: float = 120) -> None:
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"base_url {base_url[:200]!r}: expected http://host or https://host")
        self._base_url = base_url.rstrip("/")
        self._token = token
        self._timeout_s = timeout_seconds

    def download(self, model_ref: str, dest_dir: str, filename: str | None = None) -> str:
        """Fetch one file and return its path; an interrupted download is resumed. `DownloadFailedError` has the reason of a failure."""
        from gen_worker.net.fetch_one import fetch_one
        from gen_worker.net.range_client import Link

        url = model_ref if "://" in model_ref else f"{self._base_url}/{quote(model_ref.lstrip('/'))}"
        own = urlsplit(url)[:2] == urlsplit(self._base_url)[:2]
        name = filename or Path(urlsplit(url).path).name
        if not name or name in (".", "..") or "/" in name or "\\" in name:
            raise ValueError(f"file name {name!r} for {model_ref[:200]!r}: expected a plain name; give one as filename")
        link = Link(url, {"authorization": f"Bearer {self._token}"} if self._token and own else {})
        target = Path(dest_dir) / name
        fetch_one(link, target, threading.Event(), timeout_s=self._timeout_s)
        return str(target)
