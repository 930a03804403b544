"""Tracks which models are where. Programs that account by hand use it, and so does the worker: it is a per-model view of the ledger."""

import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

import msgspec

from gen_worker.residency.eviction import EvictionPolicy, LeastRecentlyUsed
from gen_worker.residency.ledger import DoesNotFitError, Ledger, Part, Pin
from gen_worker.settings import DEFAULT_SAFETY_MARGIN_GB

GB = 10**9
MAX_GB = 1_000_000


class ModelLocation(StrEnum):
    """Where a model is."""

    VRAM = "vram"
    DISK = "disk"
    DOWNLOADING = "downloading"


class ModelCacheStats(msgspec.Struct, frozen=True):
    """A picture of the cache. Sizes in GB (10^9 bytes); `vram_available_gb` is the limit minus what is used."""

    vram_models: list[str]
    disk_models: list[str]
    downloading_models: list[str]
    vram_used_gb: float
    vram_total_gb: float
    vram_available_gb: float
    total_models: int
    vram_model_count: int
    disk_model_count: int

    def to_dict(self) -> dict[str, Any]:
        """Plain values; GB are rounded to two places."""
        return {key: round(value, 2) if isinstance(value, float) else value for key, value in msgspec.to_builtins(self).items()}


class _Entry:
    def __init__(self, location: ModelLocation, size_gb: float, pipeline: Any, disk_path: Path | None) -> None:
        self.location = location
        self.size_gb = size_gb
        self.pipeline = pipeline
        self.disk_path = disk_path
        self.progress = 0.0
        self.after: _Entry | None = None  # the state it takes once its last pin is given back
        self.parts: tuple[str, ...] = ()  # ids of its parts in the ledger, while it is on the device
        self.ledger: Ledger | None = None  # the ledger of the device that it is on


class ModelCache:
    """Models over a ledger of parts. Safe from any thread.

    A pinned model never leaves the device, whatever other calls say about it. `max_vram_gb` is the limit; None means
    what torch detects minus the safety margin (3.5 GB unless given). The sizes on the device never add up to more: a
    larger model is refused. A model is on the device while all its parts are. Shared parts count once. The least
    recently used models are evicted first, unless another `policy` is given.
    """

    def __init__(
        self,
        max_vram_gb: float | None = None,
        vram_safety_margin_gb: float | None = None,
        model_cache_dir: str | Path | None = None,
        *,
        policy: EvictionPolicy | None = None,
        downloads: int = 2,
    ) -> None:
        self._downloads = downloads
        self._lock = threading.RLock()
        self._entries: OrderedDict[str, _Entry] = OrderedDict()  # least recently used first
        # Kept apart from the entries: a pin is returned to the parts it was taken on, even if the entry was replaced meanwhile.
        self._pins: dict[str, list[Pin]] = {}
        self._policy = policy or LeastRecentlyUsed()
        self.ledgers: list[Ledger] = []
        self.ledger = self.add_ledger(_vram_limit_gb(max_vram_gb, vram_safety_margin_gb))
        if model_cache_dir is not None:
            Path(model_cache_dir).expanduser().mkdir(parents=True, exist_ok=True)

    def add_ledger(self, max_vram_gb: float) -> Ledger:
        """The ledger of one more device. Models entered by hand stay on the first device."""
        limit_bytes = round(_checked_gb(max_vram_gb, "max_vram_gb") * GB)
        self.ledgers.append(Ledger(lambda: limit_bytes, self._policy))
        return self.ledgers[-1]

    def register_model(
        self, model_id: str, location: ModelLocation, size_gb: float = 0.0, pipeline: Any = None, disk_path: str | Path | None = None
    ) -> None:
        """Add or replace a model, as the most recently used. `size_gb` must not be negative."""
        _checked_gb(size_gb, "size_gb")
        if location is ModelLocation.VRAM:
            self.mark_loaded_to_vram(model_id, pipeline, size_gb)
            if disk_path is not None:
                with self._lock:
                    self._entries[model_id].disk_path = Path(disk_path)
            return
        with self._lock:
            self._put(model_id, _Entry(location, float(size_gb), None, Path(disk_path) if disk_path else None))

    def mark_loaded_to_vram(self, model_id: str, pipeline: Any, size_gb: float) -> None:
        """Record a model as loaded on the device, after making room for it; `ValueError` when room cannot be made."""
        size_bytes = round(_checked_gb(size_gb, "size_gb") * GB)
        with self._lock:
            try:
                if self.ledger.are_resident((model_id,)):
                    self.parts_gone(self.ledger, self.ledger.resize(model_id, size_bytes))
                else:
                    self.parts_gone(self.ledger, self.ledger.reserve([Part(model_id, size_bytes)])[1])
                    self.ledger.commit(model_id)
                    self.ledger.unpin((model_id,))
            except DoesNotFitError as exc:
                raise ValueError(f"model {model_id!r} of {size_gb:.2f} GB does not fit: {exc}") from None
            self.hold_parts(self.ledger, model_id, pipeline, (model_id,), size_gb)

    def hold_parts(self, ledger: Ledger, model_id: str, pipeline: Any, parts: Sequence[str], size_gb: float) -> None:
        """Record a model whose parts are already resident in this ledger."""
        with self._lock:
            old = self._entries.get(model_id)
            entry = _Entry(ModelLocation.VRAM, size_gb, pipeline, old.disk_path if old else None)
            entry.parts, entry.ledger = tuple(parts), ledger
            self._entries[model_id] = entry
            self._entries.move_to_end(model_id)
            ledger.used(parts)

    def parts_gone(self, ledger: Ledger, part_ids: Iterable[str]) -> None:
        """These parts have left the ledger's device, so models that need them are no longer loaded."""
        gone = set(part_ids)
        with self._lock:
            for name, entry in tuple(self._entries.items()):
                if gone and entry.ledger is ledger and gone.intersection(entry.parts):
                    self._leave_vram(name, entry, keep_on_disk=True)

    def mark_cached_to_disk(self, model_id: str, disk_path: str | Path, size_gb: float = 0.0) -> None:
        """Record that the model is on disk. A copy on the device is released: at once, or with its last use."""
        _checked_gb(size_gb, "size_gb")
        with self._lock:
            old = self._entries.get(model_id)
            self._put(model_id, _Entry(ModelLocation.DISK, float(size_gb) or (old.size_gb if old else 0.0), None, Path(disk_path)))

    def mark_downloading(self, model_id: str, progress: float = 0.0) -> None:
        """Record that the model is being downloaded, `progress` from 0 to 1. A model in use stays on the device."""
        progress = _checked_progress(progress)
        with self._lock:
            entry = _Entry(ModelLocation.DOWNLOADING, 0.0, None, None)
            entry.progress = progress
            self._put(model_id, entry)

    def update_download_progress(self, model_id: str, progress: float) -> None:
        """Set the progress (0 to 1) of a model that is downloading; ignored for any other."""
        progress = _checked_progress(progress)
        with self._lock:
            entry = self._entries.get(model_id)
            if entry is not None and entry.location is ModelLocation.DOWNLOADING:
                entry.progress = progress

    def get_download_progress(self, model_id: str) -> float | None:
        with self._lock:
            entry = self._entries.get(model_id)
            return entry.progress if entry is not None and entry.location is ModelLocation.DOWNLOADING else None

    def get_pipeline(self, model_id: str) -> Any | None:
        """The loaded object if it is on the device; counts as a use."""
        with self._lock:
            entry = self._entries.get(model_id)
            if entry is None or entry.location is not ModelLocation.VRAM:
                return None
            self._entries.move_to_end(model_id)
            if entry.ledger is not None:
                entry.ledger.used(entry.parts)
            return entry.pipeline

    def pin(self, model_id: str) -> Pin:
        """Keep a model on the device while a run uses it: `with cache.pin(name):`. Instead of `with`, call `release` on
        the result, or `unpin` by name. `KeyError` when the model is not on the device.
        """
        with self._lock:
            entry = self._entries[model_id]
            held = entry.ledger.pin(entry.parts) if entry.ledger is not None else None
            if held is None:
                raise KeyError(model_id)
            self._pins.setdefault(model_id, []).append(held)
            self._entries.move_to_end(model_id)
            return Pin(lambda: self._give_back(model_id, held))

    def unpin(self, model_id: str) -> None:
        """Give back the model's oldest pin; does nothing when it has none."""
        with self._lock:
            if held := self._pins.get(model_id):
                self._give_back(model_id, held[0])

    def is_pinned(self, model_id: str) -> bool:
        with self._lock:
            return model_id in self._pins

    def has_model(self, model_id: str) -> bool:
        with self._lock:
            return model_id in self._entries

    def size_gb(self, model_id: str) -> float:
        """The size recorded for a model in GB; 0 for an unknown model."""
        with self._lock:
            entry = self._entries.get(model_id)
            return entry.size_gb if entry is not None else 0.0

    def is_in_vram(self, model_id: str) -> bool:
        return self._is(model_id, ModelLocation.VRAM)

    def is_on_disk(self, model_id: str) -> bool:
        return self._is(model_id, ModelLocation.DISK)

    def unload_model(self, model_id: str) -> bool:
        """Forget a model entirely; False when it is unknown or in use."""
        with self._lock:
            if model_id not in self._entries or self.is_pinned(model_id):
                return False
            self.unload_from_vram(model_id)
            self._entries.pop(model_id, None)
            return True

    def unload_from_vram(self, model_id: str, keep_on_disk: bool = True) -> float:
        """Take a model off the device; the GB freed (0 when it was not there or is in use). Disk copies stay known, and
        parts shared with other models stay loaded.
        """
        with self._lock:
            entry = self._entries.get(model_id)
            if entry is None or entry.ledger is None or self.is_pinned(model_id):
                return 0.0
            own = self._own_parts(entry)
            freed = sum(entry.ledger.size_of(part) for part in own)
            entry.ledger.drop(own)
            self._leave_vram(model_id, entry, keep_on_disk=keep_on_disk)
            return freed / GB

    def evict_lru_vram_until_count(self, max_count: int) -> int:
        """Unload the least recently used models until at most `max_count` are on the device. The number unloaded. Pinned models stay."""
        with self._lock:
            surplus = len(self.get_vram_models()) - max(0, max_count)
            candidates = [name for name in self.get_vram_models() if not self.is_pinned(name)]
            victims = candidates[: max(0, surplus)]
            for name in victims:
                self.unload_from_vram(name)
            return len(victims)

    def can_fit_in_vram(self, size_gb: float) -> bool:
        """Whether `size_gb` fits once everything evictable is gone."""
        size_bytes = round(_checked_gb(size_gb, "size_gb") * GB)
        return any(ledger.plan(size_bytes) is not None for ledger in self.ledgers)

    def get_stats(self) -> ModelCacheStats:
        with self._lock:
            used_gb = sum(ledger.used_bytes for ledger in self.ledgers) / GB
            total_gb = sum(ledger.capacity_bytes for ledger in self.ledgers) / GB
            vram, disk = self.get_vram_models(), self.get_disk_models()
            return ModelCacheStats(
                vram_models=vram,
                disk_models=disk,
                downloading_models=self.get_downloading_models(),
                vram_used_gb=used_gb,
                vram_total_gb=total_gb,
                vram_available_gb=total_gb - used_gb,
                total_models=len(self._entries),
                vram_model_count=len(vram),
                disk_model_count=len(disk),
            )

    def get_vram_models(self) -> list[str]:
        return self._at(ModelLocation.VRAM)

    def models_on(self, ledger: Ledger) -> list[str]:
        """The models on one of several devices."""
        with self._lock:
            return [name for name, entry in self._entries.items() if entry.ledger is ledger]

    def get_disk_models(self) -> list[str]:
        return self._at(ModelLocation.DISK)

    def get_downloading_models(self) -> list[str]:
        return self._at(ModelLocation.DOWNLOADING)

    def get_all_models(self) -> list[str]:
        return self._at(*ModelLocation)

    def get_available_models(self) -> list[str]:
        return self._at(ModelLocation.VRAM, ModelLocation.DISK)

    def are_models_available(self, model_ids: list[str]) -> bool:
        """Whether all these models are known and none is still downloading."""
        with self._lock:
            available = set(self.get_available_models())
            return all(model_id in available for model_id in model_ids)

    def get_max_concurrent_downloads(self) -> int:
        """How many models may be fetched at once (WORKER_MAX_CONCURRENT_DOWNLOADS); 2 by default."""
        return self._downloads

    def _put(self, model_id: str, entry: _Entry) -> None:
        """Replace a model's entry by a state off the device: at once, or when its last pin is given back."""
        self.unload_from_vram(model_id)
        old = self._entries.get(model_id)
        if old is not None and old.ledger is not None:
            old.after = entry
            old.disk_path = entry.disk_path or old.disk_path
            return
        self._entries[model_id] = entry
        self._entries.move_to_end(model_id)

    def _give_back(self, model_id: str, held: Pin) -> None:
        with self._lock:
            pins = self._pins.get(model_id, [])
            if held not in pins:
                return
            pins.remove(held)
            held.release()
            if pins:
                return
            del self._pins[model_id]
            entry = self._entries.get(model_id)
            if entry is not None and entry.after is not None:
                self._put(model_id, entry.after)

    def _leave_vram(self, model_id: str, entry: _Entry, *, keep_on_disk: bool) -> None:
        if keep_on_disk and entry.disk_path is not None:
            entry.location, entry.pipeline, entry.parts, entry.ledger = ModelLocation.DISK, None, (), None
        else:
            del self._entries[model_id]

    def _own_parts(self, entry: _Entry) -> list[str]:
        """Parts that no other loaded model shares."""
        others = [other for other in self._entries.values() if other is not entry and other.ledger is entry.ledger]
        shared = {part for other in others for part in other.parts}
        return [part for part in entry.parts if part not in shared]

    def _is(self, model_id: str, location: ModelLocation) -> bool:
        with self._lock:
            entry = self._entries.get(model_id)
            return entry is not None and entry.location is location

    def _at(self, *locations: ModelLocation) -> list[str]:
        with self._lock:
            return [name for name, entry in self._entries.items() if entry.location in locations]


def _vram_limit_gb(limit: float | None, margin: float | None) -> float:
    if limit is not None:
        return _checked_gb(limit, "max_vram_gb")
    margin_gb = DEFAULT_SAFETY_MARGIN_GB if margin is None else _checked_gb(margin, "vram_safety_margin_gb")
    return max(0.0, _detected_gb() - margin_gb)


def _checked_gb(value: float, name: str) -> float:
    """A size as a finite number, not negative. A NaN or a negative size would make every later sum wrong."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= MAX_GB:
        raise ValueError(f"{name}={value!r}: expected GB of 10^9 bytes, a number from 0 to {MAX_GB}")
    return float(value)


def _checked_progress(value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise ValueError(f"progress={value!r}: expected a number from 0 to 1")
    return float(value)


def _detected_gb() -> float:
    try:
        import torch
    except ImportError:
        return 0.0
    if not torch.cuda.is_available():
        return 0.0
    return float(torch.cuda.get_device_properties(0).total_memory) / 1e9
