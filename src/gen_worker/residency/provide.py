"""ROOT of the models of a process: store, downloaders, device and manager, built from settings."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from gen_worker.authoring.model_interface import ModelDownloader
from gen_worker.content.cas import Cas
from gen_worker.content.housekeeping import StoreLimits
from gen_worker.content.seals import Seals
from gen_worker.log import Log
from gen_worker.net.json_client import JsonClient
from gen_worker.net.range_client import RangeClient
from gen_worker.net.retry import Retries
from gen_worker.net.wanted import Policy
from gen_worker.refs import HuggingFaceRef, ModelSpec, parse_model_ref
from gen_worker.residency.accounting import ModelCache
from gen_worker.residency.custom import DownloaderSource, ManagedLoader, manager_of
from gen_worker.residency.devices import DeviceSet, find_devices, has_nvidia
from gen_worker.residency.forms import model_of
from gen_worker.residency.manager import DEFAULT_LOADERS, ModelManager
from gen_worker.residency.tee import Tee
from gen_worker.settings import LOCAL_CACHE_DIR, DeviceSettings, ModelSettings, is_true
from gen_worker.sources.checked import CheckedSource
from gen_worker.sources.hf import HfSource
from gen_worker.sources.hub import HubSource, ListedSource, StoreFetcher
from gen_worker.sources.hub_routes import HubRoutes
from gen_worker.sources.keyspace import Keyspace
from gen_worker.sources.localize import LocalCopies
from gen_worker.sources.source import Downloads, ModelSource, OverrideSource


class Extras(msgspec.Struct, frozen=True):
    """What a program brings along: a manager in place of our loaders, a downloader in place of our sources."""

    manager: Any = None
    downloader: ModelDownloader | None = None


class Sources(msgspec.Struct, frozen=True):
    """Where models come from, and the parts of it that others need."""

    source: OverrideSource
    listed: ListedSource
    hf: HfSource
    hub: HubSource
    cas: Cas
    store: StoreFetcher
    checked: CheckedSource


def build_sources(
    settings: ModelSettings,
    overrides: Mapping[str, Path],
    extras: Extras = Extras(),  # noqa: B008 - frozen
    retries: Retries | None = None,
    log: Log | None = None,
) -> Sources:
    """Overrides first, then a scheduler's lists, the hub, Hugging Face. `ValueError` names a setting that cannot be used.

    `retries`: how all of them try again; the usual policy by default.
    """
    client, policy = RangeClient(retries=retries), Policy()
    log = log or Log()
    seals = Seals(settings.cas_root.parent / "seals")
    cas = Cas(settings.cas_root, floor_bytes=round(settings.worker_min_free_disk_gb * 1e9), log=log, seals=seals)
    limits = StoreLimits(round(settings.worker_model_cache_gb * 1e9), round(settings.worker_min_free_disk_gb * 1e9))
    store = StoreFetcher(cas, client, policy, limits)
    hub = None
    if settings.cozy_hub_url:
        client_of_hub = JsonClient(settings.cozy_hub_url, settings.cozy_hub_token)
        hub = HubRoutes(client_of_hub, may_resolve=is_true(settings.worker_allow_cozy_hub_api_resolve), retries=client.retries)
    hf = HfSource(settings, client, policy, seals)
    listed = ListedSource(store)
    cozy = HubSource(store, hub)
    by_scheme: dict[str, ModelSource] = {
        "listed": listed,
        "cozy": cozy,
        "hf": HubSource(store, hub, otherwise=hf),
    }
    source: ModelSource = CheckedSource(Downloads(by_scheme, scheme_of), seals, log, cas.blob_path)
    if extras.downloader is not None:
        source = DownloaderSource(extras.downloader, settings.cas_root.parent / "downloader")
    limit_bytes = round(settings.worker_local_cache_gb * 1e9)
    copies_in = settings.worker_local_model_cache_dir
    local = LocalCopies(source, copies_in, limit_bytes, in_shared_folder=copies_in == LOCAL_CACHE_DIR)
    copies = CheckedSource(local, seals, log, cas.blob_path)
    return Sources(OverrideSource(overrides, copies), listed, hf, cozy, cas, store, copies)


def build_models(
    sources: Sources,
    settings: ModelSettings,
    device_settings: DeviceSettings,
    cache: ModelCache,
    models: Mapping[str, Mapping[str, ModelSpec]],
    log: Log,
    extras: Extras = Extras(),  # noqa: B008 - frozen
) -> ModelManager:
    """The manager of a process, with what its disk holds known to it."""
    manager = extras.manager
    if manager is None and settings.model_manager_class:
        manager = manager_of(settings.model_manager_class)
    loaders = DEFAULT_LOADERS if manager is None else (ManagedLoader(manager, DEFAULT_LOADERS), *DEFAULT_LOADERS)
    sources.store.in_use = lambda: {model_of(name) for name in cache.get_vram_models()}
    devices = DeviceSet(lambda: find_devices(device_settings))
    tee = Tee(lambda: devices.get().host if devices.used(0) or has_nvidia() else None)  # else torch would be imported for nothing
    sources.cas.on_blob = sources.hf.on_blob = tee.arrived
    return ModelManager(
        Keyspace(models),
        sources.source,
        cache,
        devices,
        log,
        loaders,
        downloads=settings.worker_max_concurrent_downloads,
        measured=settings.cas_root.parent / "measured.json",
        margin_bytes=device_settings.margin_bytes,
        looks_ahead=is_true(settings.worker_load_ahead),
        on_close=tee.close,
        is_right=sources.checked.is_right,
    )


def scheme_of(ref: str) -> str:
    """`hf` or `cozy`; what is no ref is the hub's to refuse."""
    try:
        return "hf" if isinstance(parse_model_ref(ref), HuggingFaceRef) else "cozy"
    except ValueError:
        return "cozy"
