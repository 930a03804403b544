"""Reads an endpoint's releases: which functions and websocket handlers a tag has, and their schemas."""

from typing import Any
from urllib.parse import quote

import msgspec

from gen_worker.client.answers import refusal, unexpected
from gen_worker.client.effects import Flow
from gen_worker.client.errors import NotFoundError
from gen_worker.client.flows import Flows
from gen_worker.client.tries import ask
from gen_worker.contract.manifest import FunctionEntry, Manifest, WebsocketEntry

Entry = FunctionEntry | WebsocketEntry


class _Tag(msgspec.Struct, frozen=True):
    owner: str
    endpoint: str
    function: str
    tag: str
    release_id: str


class _Tags(msgspec.Struct, frozen=True):
    data: list[_Tag]


class _Release(msgspec.Struct, frozen=True):
    owner: str
    endpoint: str
    manifest: Manifest


def entries_of_tag(flows: Flows, owner: str, endpoint: str, tag: str) -> Flow[dict[str, list[Entry]]]:
    """The functions that have this tag, from the release that it points at."""
    query = f"owner={quote(owner, safe='')}&endpoint={quote(endpoint, safe='')}"
    found: _Tags = yield from _get(flows, f"/v1/tags?{query}", _Tags)
    by_release: dict[str, list[str]] = {}
    for each in found.data:
        if (each.owner, each.endpoint, each.tag) == (owner, endpoint, tag):
            by_release.setdefault(each.release_id, []).append(each.function)
    if not by_release:
        tags = sorted({each.tag for each in found.data if (each.owner, each.endpoint) == (owner, endpoint)})
        hint = f"its tags: {', '.join(tags)}" if tags else "cozyctl tags lists the tags"
        raise NotFoundError(f"no function of {owner}/{endpoint} has the tag {tag!r}", code="not_found", status=404, hint=hint)
    entries = {}
    for release_id, functions in sorted(by_release.items()):
        release = yield from entries_of_release(flows, owner, endpoint, release_id)
        entries[release_id] = [entry for entry in release[release_id] if entry.name in functions]
    return entries


def entries_of_release(flows: Flows, owner: str, endpoint: str, release_id: str) -> Flow[dict[str, list[Entry]]]:
    """All functions of a release of this endpoint."""
    found: _Release = yield from _get(flows, f"/v1/releases/{quote(release_id, safe='')}", _Release)
    if (found.owner, found.endpoint) != (owner, endpoint):
        detail = f"release {release_id} is one of {found.owner}/{found.endpoint}, not of {owner}/{endpoint}"
        raise NotFoundError(detail, code="not_found", status=404)
    return {release_id: list(found.manifest.entries)}


def _get(flows: Flows, path: str, kind: type[Any]) -> Flow[Any]:
    answer = yield from ask(flows.request("GET", path), flows.patience)
    if answer.status != 200:
        raise refusal(answer)
    try:
        return msgspec.json.decode(answer.body, type=kind)
    except msgspec.DecodeError:
        raise unexpected(answer, "a platform's list of releases") from None
