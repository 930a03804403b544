"""Builds the model sources of a process from its settings: overrides, a scheduler's lists, the hub, Hugging Face, the store."""

from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import msgspec

from gen_worker.content.cas import Cas
from gen_worker.content.housekeeping import StoreLimits
from gen_worker.content.seals import Seals
from gen_worker.log import Log
from gen_worker.net.json_client import JsonClient
from gen_worker.net.range_client import RangeClient
from gen_worker.net.retry import Retries
from gen_worker.net.wanted import Policy
from gen_worker.refs import HuggingFaceRef, parse_model_ref
from gen_worker.settings import LOCAL_CACHE_DIR, ModelSettings, is_true
from gen_worker.sources.checked import CheckedSource
from gen_worker.sources.hf import HfSource
from gen_worker.sources.hub import HubSource, ListedSource, Renewals, StoreFetcher
from gen_worker.sources.hub_routes import HubRoutes
from gen_worker.sources.localize import LocalCopies
from gen_worker.sources.source import Downloads, ModelSource, OverrideSource


class Sources(msgspec.Struct, frozen=True):
    """The model sources, and the parts of them that others need."""

    source: OverrideSource
    listed: ListedSource
    hf: HfSource
    hub: HubSource
    cas: Cas
    checked: CheckedSource


def build_sources(
    settings: ModelSettings,
    overrides: Mapping[str, Path],
    own: ModelSource | None = None,
    *,
    retries: Retries | None = None,
    log: Log | None = None,
    on_blob: Callable[[Path], None] = lambda path: None,
    in_use: Callable[[], Collection[str]] = tuple,
    renew: Renewals | None = None,
) -> Sources:
    """Tries overrides first, then a scheduler's lists, the hub, Hugging Face. `ValueError` names an unusable setting.

    `own`: a source supplied by the program, which replaces all but the overrides. `retries`: the retry policy of all
    sources; the usual one by default. `on_blob` is called for each file that was fetched, as soon as it is complete and
    its digest correct. `in_use` names models that must stay when room is needed. `renew` asks the scheduler for fresh
    presigned URLs.
    """
    client, policy = RangeClient(retries=retries), Policy()
    log = log or Log()
    seals = Seals(settings.cas_root.parent / "seals")
    near = Path(settings.cozy_near_blobs) if settings.cozy_near_blobs else None
    cas = Cas(
        settings.cas_root,
        floor_bytes=round(settings.worker_min_free_disk_gb * 1e9),
        log=log,
        seals=seals,
        on_blob=on_blob,
        near=near,
        owner=settings.cozy_models_owner,
    )
    limits = StoreLimits(round(settings.worker_model_cache_gb * 1e9), round(settings.worker_min_free_disk_gb * 1e9))
    store = StoreFetcher(cas, client, policy, limits, in_use)
    routes = None
    if settings.cozy_hub_url:
        client_of_hub = JsonClient(settings.cozy_hub_url, settings.cozy_hub_token)
        routes = HubRoutes(client_of_hub, may_resolve=is_true(settings.worker_allow_cozy_hub_api_resolve), retries=client.retries)
    hf = HfSource(settings, client, policy, seals, on_blob)
    listed, hub = ListedSource(store, renew), HubSource(store, routes)
    by_scheme: dict[str, ModelSource] = {
        "listed": listed,
        "cozy": hub,
        "hf": HubSource(store, routes, otherwise=hf),
    }
    source = own or CheckedSource(Downloads(by_scheme, scheme_of), seals, log, cas.blob_path)
    limit_bytes = round(settings.worker_local_cache_gb * 1e9)
    copies_in = settings.worker_local_model_cache_dir
    local = LocalCopies(source, copies_in, limit_bytes, in_shared_folder=copies_in == LOCAL_CACHE_DIR)
    copies = CheckedSource(local, seals, log, cas.blob_path)
    return Sources(OverrideSource(overrides, copies), listed, hf, hub, cas, copies)


def scheme_of(ref: str) -> str:
    """`hf` or `cozy`; text that is not a ref counts as `cozy`, and the hub refuses it."""
    try:
        return "hf" if isinstance(parse_model_ref(ref), HuggingFaceRef) else "cozy"
    except ValueError:
        return "cozy"
