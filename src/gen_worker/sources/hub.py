"""Models of a hub, or of a scheduler that has resolved them: fetches files listed with presigned URLs into the store. Blocking."""

import threading
from collections.abc import Callable, Collection
from typing import Protocol

from gen_worker.content.cas import Cas, Snapshot, tree_digest
from gen_worker.content.housekeeping import StoreLimits, make_room
from gen_worker.content.listing import Listing, RemoteFile, checked_listing
from gen_worker.content.progress import Progress
from gen_worker.errors import CozyHubError, FatalError, RetryableError
from gen_worker.net.digests import checked_digest
from gen_worker.net.range_client import Link, RangeClient
from gen_worker.net.wanted import Policy
from gen_worker.refs import CozyRef, ModelSpec, parse_model_ref
from gen_worker.sources.hub_routes import HubRoutes
from gen_worker.sources.source import LocalModel, ModelSource, ModelWant

Renew = Callable[[], Listing]


class Renewals(Protocol):
    """Fresh URLs for a model whose own have expired. Blocks until they are there; `WorkerError` when they do not come."""

    def __call__(self, model_id: str, old: Listing) -> Listing: ...


class StoreFetcher:
    """Fetches listed files into the store, and renews URLs when they expire. `in_use` names models that must stay when room is needed."""

    def __init__(
        self, cas: Cas, client: RangeClient, policy: Policy, limits: StoreLimits, in_use: Callable[[], Collection[str]] = tuple
    ) -> None:
        self.cas = cas
        self._in_use = in_use
        self._client = client
        self._policy = policy
        self._limits = limits

    def fetch(self, model_id: str, form: str, listing: Listing, renew: Renew, progress: Progress, cancel: threading.Event) -> LocalModel:
        """Fetch these files into the store. `form`: dtypes joined by commas, for example `fp16,bf16`; "" for a scheduler's list."""
        listing = checked_listing(listing, model_id)
        if missing := [file.path for file in listing.files if not file.digest.startswith("blake3:")]:
            raise FatalError(f"the file list of {model_id} names no blake3 digest for {missing[0]!r}")
        if not listing.digest:
            listing = Listing(tree_digest(listing), listing.files)
        need, growth = self.cas.missing_bytes(listing)
        make_room(self.cas, need, self._limits, keep={model_id, *self._in_use()}, held_bytes=need - growth)
        addresses = _Addresses(listing, renew)
        snapshot = self.cas.fetch(model_id, form, listing, addresses.link, self._client, self._policy, progress, cancel)
        return local_model(model_id, snapshot)


class _Addresses:
    """The newest URL of each file; one renewal at a time for all of them."""

    def __init__(self, listing: Listing, renew: Renew) -> None:
        self._renew = renew
        self._lock = threading.Lock()
        self._given: dict[str, str] = {}  # the URL last handed out, by digest
        self._urls = {file.digest: file.url for file in listing.files}

    def link(self, file: RemoteFile, expired: bool) -> Link:
        with self._lock:
            if expired and self._given.get(file.digest) == self._urls.get(file.digest):
                fresh = self._renew()
                self._urls |= {checked_digest(new.digest): new.url for new in fresh.files if new.digest and new.url}
            url = self._urls.get(file.digest, "")
            if not url:
                raise FatalError(f"the file list has no URL for {file.path!r}")
            self._given[file.digest] = url
        return Link(url)


class ListedSource:
    """Models whose files a scheduler has listed."""

    def __init__(self, store: StoreFetcher, renew: Renewals | None = None) -> None:
        self._store = store
        self._renew = renew

    def present(self, want: ModelWant) -> LocalModel | None:
        try:
            listing = _of_the_pin(want)
            found = self._store.cas.find(listing.digest) if listing.digest else None
        except ValueError:
            return None
        if found is None:
            return None
        self._store.cas.touch(want.model_id)
        return local_model(want.model_id, found)

    def fetch(self, want: ModelWant, progress: Progress, cancel: threading.Event) -> LocalModel:
        listing = _of_the_pin(want)

        def renew() -> Listing:
            if self._renew is None:
                raise RetryableError(f"the URLs of {want.model_id} have expired")
            return self._renew(want.model_id, listing)

        return self._store.fetch(want.model_id, "", listing, renew, progress, cancel)


def _of_the_pin(want: ModelWant) -> Listing:
    """The scheduler's list. A ref pinned to a version means the files of that version. A list that names no version is
    taken as the pinned one. `ValueError` for a list of another version, whose weights would be served under this ref's
    name.
    """
    listing = want.listing or Listing("", ())
    ref = parse_model_ref(want.spec.ref)
    pinned = ref.digest if isinstance(ref, CozyRef) else None
    if pinned is None:
        return listing
    if not listing.digest:
        return Listing(pinned, listing.files)
    if listing.digest.rpartition(":")[2].lower() != pinned.rpartition(":")[2]:
        raise ValueError(f"the file list is of version {listing.digest[:120]!r}, the ref is pinned to another; list the files of {pinned}")
    return listing


class HubSource:
    """`cozy:` refs, and mirrored `hf:` refs: from the store if known, otherwise by the hub's routes."""

    def __init__(self, store: StoreFetcher, hub: HubRoutes | None, otherwise: ModelSource | None = None) -> None:
        self._store = store
        self._hub = hub
        self._otherwise = otherwise

    def present(self, want: ModelWant) -> LocalModel | None:
        ref = parse_model_ref(want.spec.ref)
        pinned = ref.digest if isinstance(ref, CozyRef) else None
        cas = self._store.cas
        if pinned and not cas.owner:
            found = cas.find(pinned)
        else:  # where there are several owners, a digest alone does not show that this one has the model
            found = cas.find_ref(want.model_id, _form(want.spec)) or cas.find_ref(want.model_id)
        if found is not None:
            return local_model(want.model_id, found)
        return self._otherwise.present(want) if self._otherwise else None

    def fetch(self, want: ModelWant, progress: Progress, cancel: threading.Event) -> LocalModel:
        progress.begin("resolving")
        try:
            listing = self.resolve(want.spec, cancel)
        except CozyHubError as exc:
            # The hub does not mirror the repository, or not in this form: Hugging Face itself may have it.
            if self._otherwise is None or exc.retryable or exc.status not in (403, 404, 409):
                raise
            return self._otherwise.fetch(want, progress, cancel)
        if listing is None:
            if self._otherwise is not None:
                return self._otherwise.fetch(want, progress, cancel)
            raise FatalError(
                f"{want.model_id} is not on this machine, and orchestrator-resolved URLs are required to fetch it. "
                "For development, fetch it from your platform with `cozyctl models prefetch`, "
                "set COZY_HUB_URL and WORKER_ALLOW_COZY_HUB_API_RESOLVE=1, "
                "or map the key to a local folder with COZY_MODEL_OVERRIDES."
            )
        form = _form(want.spec)
        return self._store.fetch(want.model_id, form, listing, lambda: self.resolve(want.spec, cancel) or listing, progress, cancel)

    def resolve(self, spec: ModelSpec, cancel: threading.Event | None = None) -> Listing | None:
        """The hub's file list of a model; None when no hub may be asked. Raises a `WorkerError` with the reason when it fails."""
        return self._hub.resolve(spec, cancel or threading.Event()) if self._hub is not None else None


def _form(spec: ModelSpec) -> str:
    return ",".join(spec.dtypes)


def local_model(model_id: str, snapshot: Snapshot) -> LocalModel:
    """A snapshot of the store as a model."""
    digests = {file.path: file.digest for file in snapshot.listing.files}
    return LocalModel(model_id, snapshot.path, snapshot.listing.digest, digests, snapshot.fetched_bytes)
