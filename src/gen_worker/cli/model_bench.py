"""A project's models and the places that have them, for `cozyctl models`.

    a folder of --model or COZY_MODEL_OVERRIDES    that folder
    hf:OWNER/REPO                                  this disk, else Hugging Face
    cozy:OWNER/REPO                                this disk, else the hub in COZY_HUB_URL, else the platform that the user works with

The platform's workers get an `hf:` model from the platform itself if that has it; this machine does not.
"""

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import msgspec

from gen_worker.client.profiles import Profiles
from gen_worker.client.settings import find_server
from gen_worker.content.listing import Listing
from gen_worker.errors import CozyHubError, FatalError, RetryableError, WorkerError
from gen_worker.names import did_you_mean
from gen_worker.net.json_client import JsonClient
from gen_worker.net.retry import Retries, RetryPolicy
from gen_worker.project.cozy_toml import find_cozy_toml
from gen_worker.project.served import load_project
from gen_worker.refs import DEFAULT_DTYPES, HuggingFaceRef, ModelSpec, canonical_ref, parse_model_ref
from gen_worker.residency.takers import takers_of
from gen_worker.settings import DeviceSettings, ModelSettings
from gen_worker.sources.build import Sources, build_sources, scheme_of
from gen_worker.sources.hub_routes import HubRoutes
from gen_worker.sources.keyspace import Keyspace
from gen_worker.sources.plan import ModelPlan, Room, describe, plan_of_folder, plan_of_listing
from gen_worker.sources.source import ModelSource, ModelWant, read_overrides

TRIES = RetryPolicy(tries=2)  # the user waits, and may simply run the command again


class PlatformAddress(msgspec.Struct, frozen=True):
    """The platform that the user works with. `chosen`: by an option, a variable or a login; otherwise it is the usual address."""

    url: str
    key: str
    chosen: bool

    @classmethod
    def find(cls, url: str | None, profile: str | None, env: Mapping[str, str]) -> "PlatformAddress":
        """`ProfileError` for a profile that does not exist."""
        where, key = find_server(url, None, profile, env)
        profiles = Profiles.of_user(env)
        chosen = bool(url or profile or env.get("COZY_URL")) or profiles.read(*profiles.current()) is not None
        return cls(where, key, chosen)


class Bench:
    """Project, settings and sources. `ValueError` for what is wrong with the project or the overrides."""

    def __init__(self, folder: str, models: Sequence[str] = (), platform: PlatformAddress | None = None) -> None:
        self.settings = ModelSettings.from_env(os.environ)
        self.devices = DeviceSettings.from_env(os.environ)
        root = Path(folder)
        self.declared: Mapping[str, ModelSpec] = {}
        self._takers: Callable[[str], tuple[str, ...]] = lambda key: ()
        self.in_project = find_cozy_toml(root, os.environ) is not None
        if self.in_project:
            served = load_project(root, os.environ)
            self._takers = partial(takers_of, Keyspace(served.models_by_function), served.functions)
            self.declared = {key: spec for table in served.models_by_function.values() for key, spec in table.items()}
        overrides = read_overrides(self.settings.cozy_model_overrides, root, models, self.declared or None)
        self.sources: Sources = build_sources(self.settings, overrides)
        self._platform = platform if not self.settings.cozy_hub_url else None
        self._of_platform: Sources | None = None
        if self._platform is not None:
            at = {"cozy_hub_url": self._platform.url, "cozy_hub_token": self._platform.key, "worker_allow_cozy_hub_api_resolve": "1"}
            of_platform = msgspec.structs.replace(self.settings, **at)
            self._of_platform = build_sources(of_platform, overrides, retries=Retries(TRIES))

    def wants(self, names: tuple[str, ...], dtypes: tuple[str, ...]) -> list[ModelWant]:
        """The named models, by key or ref; without names all declared ones. `ValueError` for an unknown name."""
        declared = {key: ModelSpec.checked(spec.ref, dtypes) if dtypes else spec for key, spec in self.declared.items()}
        if not names and not self.in_project:
            raise ValueError(
                "no cozy.toml here, so no models are declared; name a ref, such as hf:owner/repo, or go to the project's folder"
            )
        if not names:
            return [ModelWant(key, spec, None, self._takers(key)) for key, spec in declared.items()]
        found = []
        by_ref = {canonical_ref(spec.ref): key for key, spec in self.declared.items()}
        for name in names:
            key = name if name in self.declared else by_ref.get(canonical_ref(name))
            if key is not None:
                found.append(ModelWant(key, declared[key], None, self._takers(key)))
            elif "/" in name:
                found.append(ModelWant(name, ModelSpec.checked(name, dtypes or DEFAULT_DTYPES)))
            else:
                raise ValueError(
                    f"no model {name!r}.{did_you_mean(name, self.declared)} Keys: {', '.join(self.declared) or 'none'}; or give a ref"
                )
        return found

    def source_of(self, want: ModelWant) -> ModelSource:
        """Where this model is fetched from."""
        is_there = scheme_of(want.spec.ref) == "cozy" and self._of_platform is not None
        return (self._of_platform if is_there and self._of_platform is not None else self.sources).source

    def plan(self, want: ModelWant, room: Room) -> ModelPlan:
        """What the model takes, and where it comes from. `WorkerError` when it cannot be found."""
        override = self.sources.source.paths.get(want.key)
        if override is not None:
            plan, listing = plan_of_folder(override, want.spec)
            return describe(want.key, want.spec, "override", f"the folder {override}", plan, listing, room)
        if scheme_of(want.spec.ref) == "hf":
            found = self.sources.hf.plan(want)
            blob_of = partial(self.sources.hf.blob_path, want.spec)
            made = describe(want.key, want.spec, "hf", "Hugging Face", found.plan, found.listing, room, blob_of)
            return msgspec.structs.replace(made, note=self._mirrored(want.spec))
        local = self.sources.hub.present(want)
        if local is not None:
            plan, listing = plan_of_folder(local.path, want.spec)
            return describe(want.key, want.spec, "store", "this disk", plan, listing, room)
        listing = self._listed(want.spec)
        name, where = ("platform", self._platform.url) if self._platform is not None else ("hub", self.settings.cozy_hub_url)
        plan = plan_of_listing(listing)
        return describe(
            *(want.key, want.spec, name, f"the {name} at {where}", plan, listing, room),
            lambda file: self.sources.cas.blob_path(file.digest),
        )

    def explained(self, exc: WorkerError, spec: ModelSpec) -> WorkerError:
        """An error of fetching or planning, with what to do if the platform is the reason."""
        if self._platform is None or scheme_of(spec.ref) != "cozy" or not isinstance(exc, CozyHubError | RetryableError):
            return exc
        url = self._platform.url
        if isinstance(exc, CozyHubError) and exc.status in (401, 403):
            return FatalError(f"{spec.ref} is not on this machine, and the platform at {url} requires a key: cozyctl login --url {url}")
        if isinstance(exc, CozyHubError) and exc.status == 404:
            said = f": {exc.said}" if exc.said else ""
            return FatalError(f"{spec.ref} is not on this machine, nor on the platform at {url}{said}. What is there: cozyctl models hub")
        if "no answer from" in str(exc):
            other = "start one (cozyctl up), name another (--url, or cozyctl login), or a hub (COZY_HUB_URL)"
            return RetryableError(f"{spec.ref} is not on this machine, and no platform answers at {url}: {other}")
        return exc

    def _listed(self, spec: ModelSpec) -> Listing:
        try:
            listing = (self._of_platform or self.sources).hub.resolve(spec)
        except WorkerError as exc:
            raise self.explained(exc, spec) from exc
        if listing is None:
            raise WorkerError(f"{spec.ref} is not on this machine, and no hub is configured; set COZY_HUB_URL")
        return listing

    def _mirrored(self, spec: ModelSpec) -> str:
        """What to know about an `hf:` model that the platform has, too. Only its list is read, so that it fetches nothing."""
        ref = parse_model_ref(spec.ref)
        if self._platform is None or not self._platform.chosen or not isinstance(ref, HuggingFaceRef):
            return ""
        there = f"cozy:hf/{ref.repo_id.replace('/', '--')}:{(ref.revision or 'latest').replace('/', '--')}"
        routes = HubRoutes(JsonClient(self._platform.url, self._platform.key), may_resolve=True, retries=Retries(RetryPolicy(tries=1)))
        try:
            routes.resolve(ModelSpec(there, spec.dtypes), threading.Event())
        except (WorkerError, ValueError):
            return ""
        return f"the platform at {self._platform.url} has it, too: its workers do not ask Hugging Face"
