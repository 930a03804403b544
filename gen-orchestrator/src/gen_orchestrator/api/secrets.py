"""Secrets of endpoints over HTTP: set, list, remove. No route shows a value."""

import asyncio
from collections.abc import Callable, Collection

import msgspec

from gen_orchestrator.api.absent import no_owner
from gen_orchestrator.api.access import caller_of
from gen_orchestrator.auth.vault import Vault
from gen_orchestrator.domain.access import Caller
from gen_orchestrator.hub.registry import Registry
from gen_orchestrator.hub.release_secrets import ReleaseSecrets
from gen_worker.http.asgi import Request, RequestError
from gen_worker.names import did_you_mean, is_run_id

MAX_BODY_BYTES = 512 << 10


class NewValue(msgspec.Struct, forbid_unknown_fields=True):
    """The body for setting a secret."""

    value: str


class SecretRoutes:
    """Handlers of `/v1/endpoints/{owner}/{endpoint}/secrets`. `renew` gets the releases whose workers need a new environment."""

    def __init__(self, vault: Vault, secrets: ReleaseSecrets, registry: Registry, renew: Callable[[Collection[str]], None]) -> None:
        self._vault = vault
        self._secrets = secrets
        self._registry = registry
        self._renew = renew

    async def list(self, request: Request) -> None:
        """`GET /v1/endpoints/{owner}/{endpoint}/secrets`: the secrets that are set, and those that a release in use
        declares but that are not set.
        """
        _, owner, endpoint = self._place(request)
        found = self._vault.list(owner, endpoint)
        in_use = self._registry.in_use()
        releases = [each.release_id for each in self._registry.releases(owner, endpoint) if each.release_id in in_use]
        declared = {name for release_id in releases for name in self._secrets.declared(release_id)}
        missing = self._vault.missing(owner, endpoint, sorted(declared))
        if not found and not self._registry.releases(owner, endpoint):
            raise RequestError(
                404,
                "not_found",
                f"{owner} has no endpoint {endpoint[:64]!r}, and no secret is set under that name",
                error="unknown_endpoint",
            )
        data = [{**msgspec.structs.asdict(each), "declared": each.name in declared} for each in found]
        await request.answer(200, msgspec.json.encode({"data": data, "missing": missing}))

    async def put(self, request: Request) -> None:
        """`PUT /v1/endpoints/{owner}/{endpoint}/secrets/{name}`: workers with another value are drained and replaced."""
        caller, owner, endpoint = self._place(request)
        name = request.parts["name"]
        try:
            body = msgspec.json.decode(await request.body(MAX_BODY_BYTES), type=NewValue)
            made = await asyncio.to_thread(self._vault.put, caller, owner, endpoint, name, body.value)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
            raise RequestError(400, "validation", f'{exc}; expected {{"value": "..."}}') from None
        except ValueError as exc:
            raise RequestError(400, "validation", str(exc)) from None
        users = self._secrets.users_of(owner, endpoint, name)
        self._renew(users)
        answer = {**msgspec.structs.asdict(made), "declared": bool(users), "published": bool(self._registry.releases(owner, endpoint))}
        await request.answer(200, msgspec.json.encode(answer))

    async def remove(self, request: Request) -> None:
        """`DELETE /v1/endpoints/{owner}/{endpoint}/secrets/{name}`."""
        caller, owner, endpoint = self._place(request)
        name = request.parts["name"]
        there = [each.name for each in self._vault.list(owner, endpoint)]
        if not await asyncio.to_thread(self._vault.remove, caller, owner, endpoint, name):
            detail = (
                f"{owner}/{endpoint} has no secret {name[:60]!r}.{did_you_mean(name[:60], there)} Secrets: {', '.join(there) or 'none'}"
            )
            raise RequestError(404, "not_found", detail, error="unknown_secret")
        self._renew(self._secrets.users_of(owner, endpoint, name))
        await request.answer(200, msgspec.json.encode({"name": name, "removed": True}))

    @staticmethod
    def _place(request: Request) -> tuple[Caller, str, str]:
        caller, owner, endpoint = caller_of(request), request.parts["owner"], request.parts["endpoint"]
        if not caller.sees(owner) or not is_run_id(owner):
            raise no_owner(owner, caller)
        if not is_run_id(endpoint):
            raise RequestError(404, "not_found", f"an endpoint cannot be named {endpoint[:64]!r}", error="unknown_endpoint")
        return caller, owner, endpoint
