"""Signing keys of worker tokens over HTTP: list and rotate. For operators only, because they belong to no owner."""

import asyncio
from collections.abc import Sequence

import msgspec

from gen_orchestrator.api.access import caller_of
from gen_orchestrator.auth.keys import Keys
from gen_orchestrator.auth.signing_keys import SigningKey
from gen_orchestrator.auth.worker_tokens import WorkerTokens
from gen_orchestrator.domain.access import ALL_OWNERS, Caller
from gen_worker.http.asgi import Request, RequestError


class SigningKeyRoutes:
    """Handlers of `/v1/signing-keys`. `keys` has the audit."""

    def __init__(self, tokens: WorkerTokens, keys: Keys) -> None:
        self._tokens = tokens
        self._keys = keys

    async def list(self, request: Request) -> None:
        """`GET /v1/signing-keys`: the keys that verify, as in the JWKS, the newest first."""
        _operator(request)
        await request.answer(200, msgspec.json.encode({"data": self._shown()}))

    async def rotate(self, request: Request) -> None:
        """`POST /v1/signing-keys`: 201 with the new key, which signs from now on. Tokens of earlier keys stay valid until they expire."""
        caller = _operator(request)
        made = await asyncio.to_thread(self._tokens.keys.rotate)
        await asyncio.to_thread(self._keys.note, caller, ALL_OWNERS, "signing_key.rotated", made.kid)
        await request.answer(201, msgspec.json.encode({"kid": made.kid, "data": self._shown()}))

    def _shown(self) -> Sequence[dict[str, object]]:
        *older, current = self._tokens.keys.valid()
        return [_key(current, signs=True), *(_key(each, signs=False) for each in reversed(older))]


def _key(key: SigningKey, *, signs: bool) -> dict[str, object]:
    return {"kid": key.kid, "signs": signs, "valid_until": None if signs else key.until}


def _operator(request: Request) -> Caller:
    caller = caller_of(request)
    if caller.owner != ALL_OWNERS:
        raise RequestError(
            403, "forbidden", f"this key is of owner {caller.owner!r}; signing keys belong to the platform and need an operator's key"
        )
    return caller
