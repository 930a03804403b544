"""Resolves `owner/endpoint/function[:tag]` to a release, once, when a run is accepted.

Everything is in the store; a copy in memory answers requests. A tag points at a published release at all times:
releases are added before tags move, and never deleted while a tag points at them.

A deleted release keeps its row, for the history of tags and for runs that name it. It gets no tag, no run and no worker
any more. `gone` has the deleted releases, and those whose deletion is being decided (`hub/removal.py`). If it is
published again, it exists again.
"""

import threading
import time
from collections.abc import Callable

import msgspec

from gen_orchestrator.domain.canary import Candidate, takes_part
from gen_orchestrator.domain.runs import Run
from gen_orchestrator.domain.scaling import ScalingLimits
from gen_orchestrator.domain.settings import FunctionSettings
from gen_orchestrator.domain.shadow import Shadow
from gen_orchestrator.hub.registry_errors import InUseError, NotFoundError, TagMovedError, TagNameError, not_served, some_of, when
from gen_orchestrator.hub.release_manifests import Resolved, identity, read_manifest, resolve_in, scaling_of, settings_of
from gen_orchestrator.hub.tag_names import DEV, PROD, split_tag
from gen_orchestrator.store.base import NO_RELEASE, DamagedRowError, Release, ReleaseStore, Tag
from gen_worker.contract.manifest import Manifest
from gen_worker.names import did_you_mean, is_tag

__all__ = ["DEV", "PROD", "InUseError", "NotFoundError", "Registry", "Resolved", "TagMovedError", "TagNameError", "split_tag"]


class Registry:
    """Releases and tags. Any thread may read; writes block and belong in a thread."""

    def __init__(self, store: ReleaseStore, now_s: Callable[[], float] = time.time) -> None:
        self._store = store
        self._now_s = now_s
        self._lock = threading.Lock()
        self._releases: dict[str, Release] = {}
        self._manifests: dict[str, Manifest] = {}
        self._resolved: dict[tuple[str, str, str, str], Resolved] = {}
        self.damaged: dict[str, str] = {}  # releases that cannot be served, and why
        self._deleted: dict[str, Release] = {}  # without their manifests, because there may be many
        self.gone: set[str] = set()
        for release in store.releases():
            if release.deleted_at:
                self._note_deleted(release)
                continue
            try:
                read_manifest(release)
            except NotFoundError as exc:
                self.damaged[release.release_id] = str(exc)
            else:
                self._releases[release.release_id] = release
        self._tags: dict[tuple[str, str], dict[str, dict[str, Tag]]] = {}
        self._taken_away: dict[tuple[str, str, str, str], int] = {}  # removed tags, and their last version
        for tag in store.tags():
            self._put(tag)
        self._candidates = {(each.owner, each.endpoint, each.function, each.tag): each for each in store.candidates()}
        self._shadows = {each.place: each for each in store.shadows()}

    def resolve(self, owner: str, endpoint: str, function: str, tag: str) -> Resolved:
        """The function behind a name; `NotFoundError` names the unknown part and the nearest name."""
        found = self._resolved.get((owner, endpoint, function, tag))
        if found is not None and found.release_id not in self.gone:
            return found
        return self._look(owner, endpoint, function, tag)

    def settings(self, release_id: str, function: str) -> FunctionSettings:
        """A function's settings in a release; also for an old run."""
        for entry in self.manifest(release_id).callables:
            if entry.name == function:
                return settings_of(self.manifest(release_id), entry)
        raise NotFoundError(f"release {release_id} has no function {function!r}")

    def manifest(self, release_id: str) -> Manifest:
        """The manifest of a release; `NotFoundError` when the release does not exist or is damaged."""
        known = self._manifests.get(release_id)
        if known is None:
            known = self._manifests[release_id] = read_manifest(self.release(release_id))
        return known

    def scaling(self, release_id: str) -> ScalingLimits:
        """The release's settings for its number of workers."""
        return scaling_of(self.manifest(release_id))

    def release(self, release_id: str) -> Release:
        release = self._releases.get(release_id) or (None if release_id in self.damaged else self._stored(release_id))
        if release is None:
            if release_id in self.damaged:
                raise NotFoundError(self.damaged[release_id])
            near = did_you_mean(release_id, self._releases)
            raise NotFoundError(f"no release {release_id!r}.{near} List them with: cozyctl releases")
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

    def deleted(self, owner: str = "", endpoint: str = "") -> list[Release]:
        """Deleted releases, newest first, without their manifests."""
        found = [r for r in self._deleted.values() if owner in ("", r.owner) and endpoint in ("", r.endpoint)]
        return sorted(found, key=lambda release: release.created_at, reverse=True)

    def is_deleted(self, release_id: str) -> bool:
        return release_id in self._deleted

    def deleted_at(self, release_id: str) -> float:
        """When it was deleted; 0 if it was not."""
        known = self._deleted.get(release_id)
        return known.deleted_at if known is not None else 0.0

    def tags(self, owner: str = "", endpoint: str = "") -> list[Tag]:
        with self._lock:
            return self._all_tags(owner, endpoint)

    def _all_tags(self, owner: str = "", endpoint: str = "") -> list[Tag]:
        return [
            tag
            for (of_owner, of_endpoint), functions in sorted(self._tags.items())
            if owner in ("", of_owner) and endpoint in ("", of_endpoint)
            for _, tags in sorted(functions.items())
            for _, tag in sorted(tags.items())
        ]

    def history(self, owner: str, endpoint: str, function: str, tag: str) -> list[Tag]:
        """Where a tag points, followed by its earlier releases, newest first; empty when there is no such tag. Blocking."""
        return [each for each in self._store.tag_history(owner, endpoint, function, tag) if each.release_id != NO_RELEASE]

    def add(self, owner: str, manifest: bytes, source: str, message: str = "") -> Release:
        """Publish a release. The same manifest from the same source is an owner's same release. `msgspec.DecodeError` when the
        manifest is invalid.
        """
        parsed = msgspec.json.decode(manifest, type=Manifest)
        if not parsed.endpoint_name:
            raise msgspec.ValidationError("the manifest has no endpoint_name")
        with self._lock:
            release_id, digest = identity(parsed.endpoint_name, manifest, source)
            first = self._releases.get(release_id) or self._deleted.get(release_id)
            if first is not None and first.owner != owner:
                release_id, digest = identity(parsed.endpoint_name, manifest, source, owner)
            release = Release(
                release_id=release_id,
                owner=owner,
                endpoint=parsed.endpoint_name,
                manifest=manifest,
                source=source,
                created_at=self._now_s(),
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
            self._deleted.pop(release.release_id, None)
            self.gone.discard(release.release_id)
            return release

    def delete(self, release_id: str, epoch: int) -> Release:
        """Mark a release deleted; its files are deleted later. `InUseError` when something needs it, or `epoch` no longer leads."""
        with self._lock:
            release = self._live(release_id)
            at = self._now_s()
            if uses := self.uses(release_id):
                raise InUseError(release_id, uses)
            if not self._store.delete_release(epoch, release_id, at):
                raise InUseError(release_id, ["the store has a tag or a run that needs it, or another node leads now: try again"])
            deleted = msgspec.structs.replace(release, deleted_at=at)
            self._note_deleted(deleted)
            return deleted

    def note_cleared(self, release_id: str) -> None:
        """The files of a deleted release are gone."""
        with self._lock:
            known, at = self._deleted.get(release_id), self._now_s()
            if known is not None and self._store.clear_release(release_id, at):
                self._deleted[release_id] = msgspec.structs.replace(known, cleared_at=at)

    def before(self, owner: str = "", endpoint: str = "") -> set[str]:
        """Where tags pointed before, which is where a rollback goes. Blocking."""
        found = set()
        for tag in self.tags(owner, endpoint):
            history = self.history(tag.owner, tag.endpoint, tag.function, tag.tag)
            found.update([each.release_id for each in history if each.release_id not in (tag.release_id, *self._deleted)][:1])
        return found

    def uses(self, release_id: str) -> list[str]:
        """What needs this release besides its runs, each as text for people."""
        tags = [f"{tag.function}:{tag.tag} points at it" for tag in self._all_tags() if tag.release_id == release_id]
        canaries = [f"it is the canary of {c.function}:{c.tag}" for c in self._candidates.values() if c.release_id == release_id]
        shadows = [
            f"it gets shadow runs of {shadow.function}:{shadow.tag} (cozyctl shadow stop)"
            for shadow in list(self._shadows.values())
            if shadow.release_id == release_id and not shadow.ended_at
        ]
        return [*sorted(tags), *sorted(canaries), *sorted(shadows)]

    def _live(self, release_id: str) -> Release:
        if (deleted := self._deleted.get(release_id)) is not None:
            raise NotFoundError(f"release {release_id} was deleted {when(deleted.deleted_at)}; publish its source again to have it back")
        return self.release(release_id)

    def _note_deleted(self, release: Release) -> None:
        release_id = release.release_id
        self._deleted[release_id] = msgspec.structs.replace(release, manifest=b"")
        self.gone.add(release_id)
        self._releases.pop(release_id, None)
        self._manifests.pop(release_id, None)
        for name in [name for name, resolved in list(self._resolved.items()) if resolved.release_id == release_id]:
            self._resolved.pop(name, None)

    def move(self, owner: str, endpoint: str, function: str, tag: str, release_id: str, *, expected: str | None = None) -> Tag:
        """Point a function's tag at a release. `expected`: the release that it must point at now, `""` for none.

        `TagMovedError` when it does not, `NotFoundError` when the release does not have the function, `TagNameError`
        for an invalid tag name.
        """
        if not is_tag(tag):
            raise TagNameError(tag)
        release = self._live(release_id)
        names = [entry.name for entry in self.manifest(release_id).callables]
        if (release.owner, release.endpoint) != (owner, endpoint) or function not in names:
            raise NotFoundError(f"release {release_id} has no function {owner}/{endpoint}/{function}.{did_you_mean(function, names)}")
        with self._lock:
            self._live(release_id)  # something may have changed in between
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
                version=(now.version if now else self._taken_away.get((owner, endpoint, function, tag), 0)) + 1,
                moved_at=self._now_s(),
            )
            if self._store.move_tag(moved) is None:
                raise TagMovedError(now)
            self._put(moved)
            return moved

    def withdraw(self, owner: str, endpoint: str) -> list[Tag]:
        """Remove all tags of an endpoint, with their candidates: it is out of service until one is moved again. Returns
        the removed tags.

        `NotFoundError` when it has none; `TagMovedError` when another node moves one: try again.
        """
        with self._lock:
            tags = self._all_tags(owner, endpoint)
            if not tags:
                raise NotFoundError(not_served(owner, endpoint, list(self._tags), self.releases(owner, endpoint)))
            for tag in tags:
                gone = msgspec.structs.replace(tag, release_id=NO_RELEASE, version=tag.version + 1, moved_at=self._now_s())
                if self._store.move_tag(gone) is None:
                    raise TagMovedError(tag)
                if self._candidates.pop((owner, endpoint, tag.function, tag.tag), None) is not None:
                    self._store.drop_candidate(owner, endpoint, tag.function, tag.tag)
                self._put(gone)
            return tags

    def in_use(self) -> set[str]:
        """Releases that a tag points at, that are a tag's candidate, or that get a tag's shadow runs."""
        shadows = {each.release_id for each in self.shadows() if not each.ended_at}
        return {tag.release_id for tag in self.tags()} | {each.release_id for each in self.candidates()} | shadows

    def candidate(self, owner: str, endpoint: str, function: str, tag: str) -> Candidate | None:
        """The release that gets a share of this tag's runs."""
        return self._candidates.get((owner, endpoint, function, tag))

    def candidates(self, owner: str = "") -> list[Candidate]:
        with self._lock:
            return [each for _, each in sorted(self._candidates.items()) if owner in ("", each.owner)]

    def set_candidate(self, tag: Tag, release_id: str, percent: float) -> Candidate:
        """From now on give a release this share of the tag's runs, replacing an earlier candidate. `NotFoundError`;
        `TagMovedError` when the tag has moved meanwhile.
        """
        place = tag.owner, tag.endpoint, tag.function, tag.tag
        self.resolve(*place[:3], f"@{release_id}")
        with self._lock:
            now = self._tags.get(place[:2], {}).get(tag.function, {}).get(tag.tag)
            if now != tag:
                raise TagMovedError(now)
            self._live(release_id)
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
        """Give all of the tag's runs to the tag's release again; False when this is no longer its candidate."""
        place = candidate.owner, candidate.endpoint, candidate.function, candidate.tag
        with self._lock:
            if self._candidates.get(place) != candidate:
                return False
            self._store.drop_candidate(*place)
            del self._candidates[place]
            return True

    def shadow(self, place: tuple[str, str, str, str]) -> Shadow | None:
        """The last shadow of a tag (owner, endpoint, function, tag), active or ended."""
        return self._shadows.get(place)

    def shadows(self, owner: str = "") -> list[Shadow]:
        with self._lock:
            return [each for _, each in sorted(self._shadows.items()) if owner in ("", each.owner)]

    def put_shadow(self, shadow: Shadow) -> None:
        """Store it, replacing the tag's earlier one. `NotFoundError` when it would begin with a deleted release."""
        with self._lock:
            if not shadow.ended_at:
                self._live(shadow.release_id)
            self._store.set_shadow(shadow)
            self._shadows[shadow.place] = shadow

    def routed(self, resolved: Resolved, run: Run) -> Resolved:
        """The release for a run of this tag, chosen by the run's id: the tag's release, or its candidate."""
        candidate = self._candidates.get((run.owner, run.endpoint, run.function, resolved.tag)) if self._candidates else None
        if candidate is None or not takes_part(run.id, candidate.percent):
            return resolved
        pinned = self.resolve(run.owner, run.endpoint, run.function, f"@{candidate.release_id}")
        return msgspec.structs.replace(pinned, tag=resolved.tag)

    def _put(self, tag: Tag) -> None:
        place = tag.owner, tag.endpoint, tag.function, tag.tag
        self._resolved.pop(place, None)
        if tag.release_id == NO_RELEASE:
            self._taken_away[place] = tag.version
            functions = self._tags.get(place[:2], {})
            functions.get(tag.function, {}).pop(tag.tag, None)
            if not functions.get(tag.function):
                functions.pop(tag.function, None)
            if not functions:
                self._tags.pop(place[:2], None)
            return
        self._tags.setdefault(place[:2], {}).setdefault(tag.function, {})[tag.tag] = tag

    def _pinned(self, owner: str, endpoint: str, function: str, pin: str) -> Resolved:
        """A function of one release, whatever its tags."""
        release_id = pin.removeprefix("@")
        release, deleted = self._releases.get(release_id), self._deleted.get(release_id)
        if deleted is not None and (deleted.owner, deleted.endpoint) == (owner, endpoint):
            self._live(release_id)
        if release is None or (release.owner, release.endpoint) != (owner, endpoint):
            near = did_you_mean(release_id[:100], [each.release_id for each in self.releases(owner, endpoint)])
            raise NotFoundError(f"{owner}/{endpoint} has no release {release_id[:100]!r}.{near}")
        manifest = self.manifest(release_id)
        names = [entry.name for entry in manifest.callables]
        if function not in names:
            near = did_you_mean(function, names)
            raise NotFoundError(f"release {release_id} has no function {function[:64]!r}.{near} Functions: {some_of(names)}")
        resolved = self._resolved[owner, endpoint, function, pin] = resolve_in(manifest, release_id, pin, function)
        return resolved

    def _look(self, owner: str, endpoint: str, function: str, tag: str) -> Resolved:
        if tag.startswith("@"):
            return self._pinned(owner, endpoint, function, tag)
        with self._lock:
            functions = self._tags.get((owner, endpoint))
            if functions is None:
                raise NotFoundError(not_served(owner, endpoint, list(self._tags), self.releases(owner, endpoint)))
            tags = functions.get(function)
            if tags is None:
                near = did_you_mean(function, functions)
                raise NotFoundError(f"{owner}/{endpoint} has no function {function[:64]!r}.{near} Functions: {some_of(functions)}")
            found = tags.get(tag)
            if found is None:
                near = f"{did_you_mean(tag, tags)} Tags: {some_of(tags)}"
                raise NotFoundError(f"{owner}/{endpoint}/{function} has no tag {tag[:64]!r}.{near}")
        resolved = resolve_in(self.manifest(found.release_id), found.release_id, tag, function)
        with self._lock:
            if self._tags[owner, endpoint][function][tag] is found:
                self._resolved[owner, endpoint, function, tag] = resolved
        return resolved
