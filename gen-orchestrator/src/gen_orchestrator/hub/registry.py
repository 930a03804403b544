"""Which code a name means: `owner/endpoint/function[:tag]` to a release, resolved once, when a run is accepted.

Everything is in the store; a copy in memory answers requests. A tag points at a published release at all times: releases are added
before tags move, and never removed while a tag points at them.
"""

import hashlib
import threading
import time
from collections.abc import Callable

import msgspec

from gen_orchestrator.domain.canary import Candidate, takes_part
from gen_orchestrator.domain.runs import MAX_ATTEMPTS, Run
from gen_orchestrator.domain.scaling import ScalingLimits
from gen_orchestrator.domain.settings import FunctionSettings
from gen_orchestrator.domain.shadow import Shadow
from gen_orchestrator.store.base import DamagedRowError, Release, ReleaseStore, Tag
from gen_worker.contract.manifest import FunctionEntry, Manifest
from gen_worker.durations import parse_duration
from gen_worker.names import TAG_RULE, did_you_mean, is_tag
from gen_worker.refs import canonical_ref

PROD = "prod"
DEV = "dev"


class NotFoundError(LookupError):
    """No such owner, endpoint, function or tag; the message names the nearest."""


class TagNameError(ValueError):
    """A name that no tag can have."""

    def __init__(self, tag: str) -> None:
        super().__init__(f"tag {tag[:64]!r}: {TAG_RULE}")


class TagMovedError(Exception):
    """Somebody else moved the tag first; `now` is where it points."""

    def __init__(self, now: Tag | None) -> None:
        super().__init__(f"the tag has moved meanwhile; it points at {now.release_id if now else 'nothing'} now")
        self.now = now


def split_tag(name: str) -> tuple[str, str]:
    """`function[:tag]` or `function@release` as function and tag, `prod` where none is named; a release stands as `@release` in the
    place of a tag. `TagNameError` for what can be no tag, such as nothing."""
    function, at, release_id = name.partition("@")
    if at and ":" not in function:
        return function, f"@{release_id}"
    function, colon, tag = name.partition(":")
    if not colon:
        return function, PROD
    if not is_tag(tag):
        raise TagNameError(tag)
    return function, tag


class Resolved(msgspec.Struct, frozen=True):
    """What a name means now. `takes_bytes`: its payload has a field for bytes, which JSON carries in base64."""

    release_id: str
    tag: str
    entry: FunctionEntry
    settings: FunctionSettings
    takes_bytes: bool = False


class _Settings(msgspec.Struct, frozen=True):
    timeout_s: float = 0.0
    start_timeout_s: float = 0.0
    max_attempts: int = MAX_ATTEMPTS
    queue_max: int = 1000
    durable: bool = True
    memo: str = ""


class Registry:
    """Releases and tags. Reads come from any thread; writes block and belong into a thread."""

    def __init__(self, store: ReleaseStore, now_s: Callable[[], float] = time.time) -> None:
        self._store = store
        self._now_s = now_s
        self._lock = threading.Lock()
        self._releases: dict[str, Release] = {}
        self.damaged: dict[str, str] = {}  # releases that cannot be served, and why
        for release in store.releases():
            try:
                _manifest_of(release)
            except NotFoundError as exc:
                self.damaged[release.release_id] = str(exc)
            else:
                self._releases[release.release_id] = release
        self._manifests: dict[str, Manifest] = {}
        self._tags: dict[tuple[str, str], dict[str, dict[str, Tag]]] = {}
        self._resolved: dict[tuple[str, str, str, str], Resolved] = {}
        for tag in store.tags():
            self._put(tag)
        self._candidates = {(each.owner, each.endpoint, each.function, each.tag): each for each in store.candidates()}
        self._shadows = {each.place: each for each in store.shadows()}

    def resolve(self, owner: str, endpoint: str, function: str, tag: str) -> Resolved:
        """What a name means; `NotFoundError` names the part that is unknown and what is nearest to it."""
        found = self._resolved.get((owner, endpoint, function, tag))
        return found if found is not None else self._look(owner, endpoint, function, tag)

    def settings(self, release_id: str, function: str) -> FunctionSettings:
        """The settings of a function at a release, of an old run too."""
        for entry in self.manifest(release_id).functions:
            if entry.name == function:
                return _function_settings(self.manifest(release_id), entry)
        raise NotFoundError(f"release {release_id} has no function {function!r}")

    def manifest(self, release_id: str) -> Manifest:
        """The manifest of a release; `NotFoundError` when there is no such release, or it is damaged."""
        known = self._manifests.get(release_id)
        if known is None:
            known = self._manifests[release_id] = _manifest_of(self.release(release_id))
        return known

    def scaling(self, release_id: str) -> ScalingLimits:
        """What the release says of how many workers it should have."""
        return _scaling(self.manifest(release_id))

    def release(self, release_id: str) -> Release:
        release = self._releases.get(release_id) or (None if release_id in self.damaged else self._stored(release_id))
        if release is None:
            if release_id in self.damaged:
                raise NotFoundError(self.damaged[release_id])
            raise NotFoundError(f"there is no release {release_id!r}.{did_you_mean(release_id, self._releases)}")
        return release

    def _stored(self, release_id: str) -> Release | None:
        try:
            return self._store.release(release_id)
        except DamagedRowError as exc:
            raise NotFoundError(f"{exc}. Publish the same source again, or point its tags at another release (cozyctl promote)") from None

    def releases(self, owner: str = "", endpoint: str = "") -> list[Release]:
        """Newest first."""
        found = [r for r in self._releases.values() if owner in ("", r.owner) and endpoint in ("", r.endpoint)]
        return sorted(found, key=lambda release: release.created_at, reverse=True)

    def tags(self, owner: str = "", endpoint: str = "") -> list[Tag]:
        with self._lock:
            return [
                tag
                for (of_owner, of_endpoint), functions in sorted(self._tags.items())
                if owner in ("", of_owner) and endpoint in ("", of_endpoint)
                for _, tags in sorted(functions.items())
                for _, tag in sorted(tags.items())
            ]

    def history(self, owner: str, endpoint: str, function: str, tag: str) -> list[Tag]:
        """Where a tag points, and each release at which it pointed before, newest first; empty where there is no such tag. Blocking."""
        return self._store.tag_history(owner, endpoint, function, tag)

    def add(self, owner: str, manifest: bytes, source: str, message: str = "") -> Release:
        """Publish a release: the same manifest from the same source is the same release. `msgspec.DecodeError` for what is no manifest."""
        parsed = msgspec.json.decode(manifest, type=Manifest)
        if not parsed.endpoint_name:
            raise msgspec.ValidationError("the manifest has no endpoint_name")
        digest = hashlib.blake2b(manifest + source.encode(), digest_size=16).hexdigest()
        with self._lock:
            now_s = self._now_s()
            release = Release(
                release_id=f"{parsed.endpoint_name}-{digest[:12]}",
                owner=owner,
                endpoint=parsed.endpoint_name,
                manifest=manifest,
                source=source,
                created_at=now_s,
                digest=digest,
                message=message,
            )
            known = self._releases.get(release.release_id)
            if known is not None:
                return known
            self._store.add_release(release)
            self._releases[release.release_id] = release
            self._manifests[release.release_id] = parsed
            self.damaged.pop(release.release_id, None)
            return release

    def move(self, owner: str, endpoint: str, function: str, tag: str, release_id: str, *, expected: str | None = None) -> Tag:
        """Point a function's tag at a release. `expected`: the release that it must point at now, `""` for none.

        `TagMovedError` when it does not, `NotFoundError` when the release does not have the function, `TagNameError` for a name that no
        tag can have.
        """
        if not is_tag(tag):
            raise TagNameError(tag)
        release = self.release(release_id)
        names = [entry.name for entry in self.manifest(release_id).functions]
        if (release.owner, release.endpoint) != (owner, endpoint) or function not in names:
            raise NotFoundError(f"release {release_id} has no function {owner}/{endpoint}/{function}.{did_you_mean(function, names)}")
        with self._lock:
            now = self._tags.get((owner, endpoint), {}).get(function, {}).get(tag)
            if expected is not None and expected != (now.release_id if now else ""):
                raise TagMovedError(now)
            if (owner, endpoint, function, tag) in self._candidates:
                self._store.drop_candidate(owner, endpoint, function, tag)
                del self._candidates[owner, endpoint, function, tag]
            if now is not None and now.release_id == release_id:
                return now
            moved = Tag(
                owner=owner,
                endpoint=endpoint,
                function=function,
                tag=tag,
                release_id=release_id,
                version=now.version + 1 if now else 1,
                moved_at=self._now_s(),
            )
            if self._store.move_tag(moved) is None:
                raise TagMovedError(now)
            self._put(moved)
            return moved

    def in_use(self) -> set[str]:
        """Releases that a tag points at, that are a tag's candidate, or that get copies of a tag's runs."""
        shadows = {each.release_id for each in self.shadows() if not each.ended_at}
        return {tag.release_id for tag in self.tags()} | {each.release_id for each in self.candidates()} | shadows

    def candidate(self, owner: str, endpoint: str, function: str, tag: str) -> Candidate | None:
        """The release that gets a share of this tag's runs."""
        return self._candidates.get((owner, endpoint, function, tag))

    def candidates(self, owner: str = "") -> list[Candidate]:
        with self._lock:
            return [each for _, each in sorted(self._candidates.items()) if owner in ("", each.owner)]

    def set_candidate(self, tag: Tag, release_id: str, percent: float) -> Candidate:
        """Give a release this share of the tag's runs from now on, in the place of an earlier candidate. `NotFoundError`, and
        `TagMovedError` where the tag has moved meanwhile."""
        place = tag.owner, tag.endpoint, tag.function, tag.tag
        self.resolve(*place[:3], f"@{release_id}")
        with self._lock:
            now = self._tags.get(place[:2], {}).get(tag.function, {}).get(tag.tag)
            if now != tag:
                raise TagMovedError(now)
            candidate = Candidate(
                owner=tag.owner,
                endpoint=tag.endpoint,
                function=tag.function,
                tag=tag.tag,
                release_id=release_id,
                percent=percent,
                since=self._now_s(),
            )
            self._store.set_candidate(candidate)
            self._candidates[place] = candidate
            return candidate

    def drop_candidate(self, candidate: Candidate) -> bool:
        """Give all of the tag's runs to the tag's release again; False where this is not its candidate any more."""
        place = candidate.owner, candidate.endpoint, candidate.function, candidate.tag
        with self._lock:
            if self._candidates.get(place) != candidate:
                return False
            self._store.drop_candidate(*place)
            del self._candidates[place]
            return True

    def shadow(self, place: tuple[str, str, str, str]) -> Shadow | None:
        """The last shadow of a tag (owner, endpoint, function, tag), whether it goes on or has ended."""
        return self._shadows.get(place)

    def shadows(self, owner: str = "") -> list[Shadow]:
        with self._lock:
            return [each for _, each in sorted(self._shadows.items()) if owner in ("", each.owner)]

    def put_shadow(self, shadow: Shadow) -> None:
        """Keep it in the place of the tag's earlier one."""
        with self._lock:
            self._store.set_shadow(shadow)
            self._shadows[shadow.place] = shadow

    def routed(self, resolved: Resolved, run: Run) -> Resolved:
        """What a run of this tag is given to, by its id: the tag's release, or its candidate."""
        candidate = self._candidates.get((run.owner, run.endpoint, run.function, resolved.tag)) if self._candidates else None
        if candidate is None or not takes_part(run.id, candidate.percent):
            return resolved
        pinned = self.resolve(run.owner, run.endpoint, run.function, f"@{candidate.release_id}")
        return msgspec.structs.replace(pinned, tag=resolved.tag)

    def _put(self, tag: Tag) -> None:
        functions = self._tags.setdefault((tag.owner, tag.endpoint), {})
        functions.setdefault(tag.function, {})[tag.tag] = tag
        self._resolved.pop((tag.owner, tag.endpoint, tag.function, tag.tag), None)

    def _pinned(self, owner: str, endpoint: str, function: str, pin: str) -> Resolved:
        """A function of one release, whatever points at it."""
        release_id = pin.removeprefix("@")
        release = self._releases.get(release_id)
        if release is None or (release.owner, release.endpoint) != (owner, endpoint):
            near = did_you_mean(release_id[:100], [each.release_id for each in self.releases(owner, endpoint)])
            raise NotFoundError(f"{owner}/{endpoint} has no release {release_id[:100]!r}.{near}")
        manifest = self.manifest(release_id)
        names = [entry.name for entry in manifest.functions]
        if function not in names:
            near = did_you_mean(function, names)
            raise NotFoundError(f"release {release_id} has no function {function[:64]!r}.{near} Functions: {_some(names)}")
        resolved = self._resolved[owner, endpoint, function, pin] = _resolved(manifest, release_id, pin, function)
        return resolved

    def _look(self, owner: str, endpoint: str, function: str, tag: str) -> Resolved:
        if tag.startswith("@"):
            return self._pinned(owner, endpoint, function, tag)
        with self._lock:
            owners = {known for known, _ in self._tags}
            if owner not in owners:
                raise NotFoundError(f"there is no owner {owner[:64]!r}.{did_you_mean(owner, owners)}")
            endpoints = [name for known, name in self._tags if known == owner]
            functions = self._tags.get((owner, endpoint))
            if functions is None:
                raise NotFoundError(
                    f"{owner} has no endpoint {endpoint[:64]!r}.{did_you_mean(endpoint, endpoints)} Endpoints: {_some(endpoints)}"
                )
            tags = functions.get(function)
            if tags is None:
                near = did_you_mean(function, functions)
                raise NotFoundError(f"{owner}/{endpoint} has no function {function[:64]!r}.{near} Functions: {_some(functions)}")
            found = tags.get(tag)
            if found is None:
                raise NotFoundError(f"{owner}/{endpoint}/{function} has no tag {tag[:64]!r}.{did_you_mean(tag, tags)} Tags: {_some(tags)}")
        resolved = _resolved(self.manifest(found.release_id), found.release_id, tag, function)
        with self._lock:
            if self._tags[owner, endpoint][function][tag] is found:
                self._resolved[owner, endpoint, function, tag] = resolved
        return resolved


def _manifest_of(release: Release) -> Manifest:
    """Its manifest, with everything in it that is read later; `NotFoundError` where the store has something else in its place."""
    try:
        manifest = msgspec.json.decode(release.manifest, type=Manifest)
        for entry in manifest.functions:
            _function_settings(manifest, entry)
        _scaling(manifest)
    except Exception as exc:  # noqa: BLE001 - whatever a damaged manifest does to its readers, it is one release that is not served
        raise NotFoundError(
            f"release {release.release_id} of {release.owner}/{release.endpoint} cannot be served: its manifest is damaged in the store "
            f"({exc}). Publish the same source again, or point its tags at another release (cozyctl promote)"
        ) from None
    return manifest


def _scaling(manifest: Manifest) -> ScalingLimits:
    return msgspec.convert(manifest.scaling or {}, ScalingLimits)


def _resolved(manifest: Manifest, release_id: str, tag: str, function: str) -> Resolved:
    entry = next(entry for entry in manifest.functions if entry.name == function)
    takes_bytes = b'"contentEncoding"' in msgspec.json.encode(entry.input_schema)
    return Resolved(release_id, tag, entry, _function_settings(manifest, entry), takes_bytes)


def _some(names: object) -> str:
    listed = sorted(names)  # type: ignore[call-overload]
    return ", ".join(listed[:12]) + (", ..." if len(listed) > 12 else "") or "none"


def _function_settings(manifest: Manifest, entry: FunctionEntry) -> FunctionSettings:
    known = {name: value for name, value in entry.resources.items() if name in _Settings.__struct_fields__}
    settings = msgspec.convert(known, _Settings)
    keys = {key: canonical_ref(spec.ref) for key, spec in manifest.models_of(entry.name).items()}
    return FunctionSettings(
        timeout_s=settings.timeout_s,
        start_timeout_s=settings.start_timeout_s,
        max_attempts=settings.max_attempts,
        queue_max=settings.queue_max,
        durable=settings.durable,
        memo_s=parse_duration(settings.memo) if settings.memo else 0,
        models=tuple(keys.get(key, canonical_ref(key)) for key in entry.required_keys),
        models_by_key=keys,
        model_fields=tuple(selector.field for selector in entry.payload_repo_selectors),
    )
