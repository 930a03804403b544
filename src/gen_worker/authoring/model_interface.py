"""What programs bring along in place of ours: a manager that loads models its own way, a downloader that fetches them."""

import threading
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit


class ModelManager(ABC):
    """Loads models in place of the built-in loaders. Give it to `Worker(model_manager=...)`, or name it in
    MODEL_MANAGER_CLASS=module:Class.

    Methods are called from threads, one load of a model at a time; they may be `async`. Objects that also have
    `get_for_inference(model_ref)` hand out what one run gets, which must not share state with what other runs get.
    """

    @abstractmethod
    def load(self, model_ref: str, local_path: str | None = None, **opts: Any) -> Any:
        """The loaded model, or None to leave it to the built-in loaders. `local_path` is where its files are; `opts` holds `device` and
        `dtypes`."""

    @abstractmethod
    def get(self, model_ref: str) -> Any | None:
        """A model that is loaded, else None."""

    @abstractmethod
    def unload(self, model_ref: str) -> None:
        """Let go of a model: the ledger needs its room, or somebody asked for it."""

    @abstractmethod
    def stats(self) -> dict[str, Any]:
        """Whatever is worth showing of its state."""


class ModelManagementInterface(ABC):
    """The other form of a model manager, which projects for published workers have. It is plugged in the same way as `ModelManager`.

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
        """A model that is loaded, else None."""

    @abstractmethod
    async def get_active_model_bundle(self, model_id: str) -> Any | None:
        """Not called: several models of a function are several parameters."""

    @abstractmethod
    def get_vram_loaded_models(self) -> list[str]:
        """What is loaded."""

    def get_for_inference(self, model_id: str) -> Any | None:
        """What one run gets, which must not share state with what other runs get. None: the loaded model itself."""
        return None


class ModelDownloader(ABC):
    """Fetches models in place of the built-in sources; `Worker(downloader=...)`."""

    @abstractmethod
    def download(self, model_ref: str, dest_dir: str, filename: str | None = None) -> str:
        """Bring a model below `dest_dir` and return its path. Blocking; an awaitable is awaited. Called by one thread at a time for a
        model."""


class CozyHubDownloader(ModelDownloader):
    """Files below one base URL. The token goes to that host only; a full URL is fetched as it is, elsewhere without the token."""

    def __init__(self, base_url: str, token: str | None = None, timeout_seconds: float = 120) -> None:
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"base_url {base_url[:200]!r}: expected http://host or https://host")
        self._base_url = base_url.rstrip("/")
        self._token = token
        self._timeout_s = timeout_seconds

    def download(self, model_ref: str, dest_dir: str, filename: str | None = None) -> str:
        """Fetch one file, resumed where an earlier try stopped; its path. `DownloadFailedError` says why not."""
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
