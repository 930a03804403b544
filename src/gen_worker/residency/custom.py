"""Model managers and downloaders supplied by a program, behind the same interfaces as the built-in ones."""

import asyncio
import hashlib
import importlib
import inspect
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_origin

from gen_worker.authoring.model_interface import ModelDownloader
from gen_worker.content.progress import Progress
from gen_worker.errors import FatalError
from gen_worker.residency.loaders.base import Loaded, Loader, LoadPlan, LoadRequest, choose_loader, folder_bytes, whole
from gen_worker.residency.loaders.own import measured_bytes
from gen_worker.settings import ModelSettings, SettingError
from gen_worker.sources.source import LocalModel, ModelWant

_DONE = ".complete"


class ManagedLoader:
    """Asks a model manager first, and the built-in loaders for whatever it does not handle.

    Managers of both kinds are understood: `load`/`get`/`unload`, and
    `load_model_into_vram`/`get_active_pipeline`/`get_for_inference`.
    """

    def __init__(self, manager: Any, otherwise: tuple[Loader, ...]) -> None:
        self._manager = manager
        self._otherwise = otherwise

    def accepts(self, request: LoadRequest) -> bool:
        return request.annotation is not Path

    def plan(self, request: LoadRequest) -> LoadPlan:
        def load() -> Loaded:
            ref = request.model_id
            model = self._load(ref, request)
            if model is None:
                return self._by_others(request)
            expected = get_origin(request.annotation) or request.annotation
            if isinstance(expected, type) and not isinstance(model, expected):
                raise FatalError(
                    f"model injection type mismatch: {ref} was loaded as {type(model).__name__}, the parameter is a {expected.__name__}"
                )
            hand_out = getattr(self._manager, "get_for_inference", None)
            view = (lambda: _handed_out(hand_out(ref), model)) if callable(hand_out) else (lambda: model)
            size_bytes = measured_bytes(model) or folder_bytes(request.path)
            return Loaded(model, size_bytes, view, lambda: self._unload(ref), view_blocks=callable(hand_out))

        return whole(request, folder_bytes(request.path), load)

    def _load(self, ref: str, request: LoadRequest) -> Any:
        manager = self._manager
        if callable(getattr(manager, "load_model_into_vram", None)):
            if not _awaited(manager.load_model_into_vram(ref)):
                return None
            return _awaited(manager.get_active_pipeline(ref))
        return _awaited(manager.load(ref, str(request.path), device=request.device().name, dtypes=tuple(request.dtypes)))

    def _unload(self, ref: str) -> None:
        if callable(getattr(self._manager, "unload", None)):
            _awaited(self._manager.unload(ref))

    def _by_others(self, request: LoadRequest) -> Loaded:
        from gen_worker.residency.loaders.base import LoadControl

        plan = choose_loader(self._otherwise, request).plan(request)
        control = LoadControl(lambda size_bytes: None, threading.Event())
        return plan.assemble({part.part_id: part.load(control)[0] for part in plan.parts})


class DownloaderSource:
    """Models fetched by the program's own downloader, each into its own folder below `root`."""

    def __init__(self, downloader: ModelDownloader, root: Path) -> None:
        self._downloader = downloader
        self._root = root

    def present(self, want: ModelWant) -> LocalModel | None:
        try:
            path = Path((self._folder(want) / _DONE).read_text())
        except OSError:
            return None
        return LocalModel(want.model_id, path) if path.exists() else None

    def fetch(self, want: ModelWant, progress: Progress, cancel: threading.Event) -> LocalModel:
        folder = self._folder(want)
        folder.mkdir(parents=True, exist_ok=True)
        progress.begin("downloading")
        path = Path(_awaited(self._downloader.download(want.spec.ref, str(folder))))
        if not path.exists():
            raise FatalError(f"the downloader returned {str(path)[:200]!r} for {want.model_id}, and there is nothing")
        (folder / _DONE).write_text(str(path))
        return LocalModel(want.model_id, path, fetched_bytes=folder_bytes(path))

    def _folder(self, want: ModelWant) -> Path:
        return self._root / hashlib.sha256(want.model_id.encode()).hexdigest()[:32]


def downloader_source(downloader: ModelDownloader | None, settings: ModelSettings) -> DownloaderSource | None:
    """The source for the program's own downloader; None when it has none."""
    return None if downloader is None else DownloaderSource(downloader, settings.cas_root.parent / "downloader")


def manager_of(name: str) -> Any:
    """An instance of the class named by MODEL_MANAGER_CLASS (`module:Class`); `SettingError` when it cannot be imported or created."""
    module, colon, attribute = name.partition(":")
    try:
        if not colon:
            raise ImportError("expected module:Class")
        kind: Callable[[], Any] = getattr(importlib.import_module(module), attribute)
        return kind()
    except (Exception, SystemExit) as exc:
        raise SettingError(f"environment variable MODEL_MANAGER_CLASS={name[:200]!r}: {type(exc).__name__}: {exc}") from exc


def _awaited(value: Any) -> Any:
    """The value itself, or the result when it is awaitable. Only for threads without an event loop."""
    if not inspect.isawaitable(value):
        return value

    async def wait() -> Any:
        return await value

    return asyncio.run(wait())


def _handed_out(value: Any, model: Any) -> Any:
    """The object a manager gives to one run; the model itself when the manager returns None."""
    made = _awaited(value)
    return model if made is None else made
