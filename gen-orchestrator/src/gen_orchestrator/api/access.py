"""Who may ask for what: each route's scope, keys themselves, and the audit.

    no keys asked for (a laptop's loopback)   everybody is EVERYBODY: all owners, all scopes
    keys asked for                            no key, or none that holds: 401; a key without the scope: 403;
                                              what belongs to another owner: 404, as if it did not exist

Handlers learn their caller by `caller_of`, and say 404 for what it does not see.
"""

import asyncio
import time
from collections.abc import Callable

import msgspec

from gen_orchestrator.auth.keys import Keys
from gen_orchestrator.domain.access import ALL_OWNERS, EVERYBODY, Caller, Key, Scope
from gen_worker.http.asgi import Handler, Request, RequestError
from gen_worker.names import did_you_mean

_CALLER = "gen_orchestrator.caller"
REFUSALS_NOTED_S = 10.0
MAX_BODY_BYTES = 64 << 10
MAX_NAME_CHARACTERS = 200
MAX_AUDIT = 1000
MAX_LIFE_S = 10 * 366 * 24 * 3600.0


def caller_of(request: Request) -> Caller:
    """Who sent this request."""
    caller: Caller = request.scope.get(_CALLER, EVERYBODY)
    return caller


def bearer_of(request: Request) -> str:
    """The token of `Authorization: Bearer TOKEN`; empty where there is none."""
    scheme, _, text = request.header(b"authorization").partition(" ")
    return text.strip() if scheme.lower() == "bearer" else ""


class Guard:
    """Puts handlers behind keys. `is_asking`: False lets everybody through."""

    def __init__(self, keys: Keys, *, is_asking: bool) -> None:
        self._keys = keys
        self._is_asking = is_asking
        self._noted_s = float("-inf")

    def __call__(self, scope: Scope | None, handler: Handler, others: Callable[[Request], Caller | None] = lambda request: None) -> Handler:
        """The handler for callers with this scope, None: any. `others` knows callers by other tokens than keys."""
        if not self._is_asking:
            return handler

        async def guarded(request: Request) -> None:
            text = bearer_of(request)
            caller = self._keys.verify(text) or others(request)
            if caller is None:
                raise await self._refused(request, text)
            if scope is not None and not caller.may(scope):
                detail = (
                    f"this key may {', '.join(caller.scopes)}; {request.scope['method']} {request.scope['path']} needs the scope {scope!r}"
                )
                raise RequestError(403, "forbidden", detail)
            request.scope[_CALLER] = caller
            await handler(request)

        return guarded

    async def _refused(self, request: Request, text: str) -> RequestError:
        now_s = time.monotonic()
        if text and now_s - self._noted_s > REFUSALS_NOTED_S:  # a flood of wrong keys must not fill the store
            self._noted_s = now_s
            await asyncio.to_thread(self._keys.note, EVERYBODY, ALL_OWNERS, "key.refused", request.scope["path"])
        what = "the key is not accepted: it is unknown, over, or revoked" if text else "a key is needed: Authorization: Bearer cz_..."
        return RequestError(401, "auth", what, hint="cozyctl login, or COZY_API_KEY", headers={"www-authenticate": 'Bearer realm="cozy"'})


class NewKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a new key. `life_s`: 0 for one that holds until it is revoked."""

    scopes: tuple[str, ...]
    name: str = ""
    owner: str = ""
    life_s: float = 0.0


class KeyRoutes:
    """Handlers of `/v1/me`, `/v1/keys`, `/v1/audit`. `owner` is whose keys are made where nobody says."""

    def __init__(self, keys: Keys, owner: str) -> None:
        self._keys = keys
        self._owner = owner

    async def me(self, request: Request) -> None:
        """`GET /v1/me`: what the key of this request may do."""
        caller = caller_of(request)
        await request.answer(200, msgspec.json.encode({"owner": caller.owner, "scopes": caller.scopes, "name": caller.name}))

    async def list(self, request: Request) -> None:
        """`GET /v1/keys`."""
        caller = caller_of(request)
        found = self._keys.list(caller.own(request.query().get("owner", "")))
        await request.answer(200, msgspec.json.encode({"data": [_shown(key) for key in found]}))

    async def create(self, request: Request) -> None:
        """`POST /v1/keys`: 201 with the key's text, which is told this once."""
        caller = caller_of(request)
        try:
            wanted = msgspec.json.decode(await request.body(MAX_BODY_BYTES), type=NewKey)
            if len(wanted.name) > MAX_NAME_CHARACTERS or not 0 <= wanted.life_s <= MAX_LIFE_S:
                raise ValueError(f"name: at most {MAX_NAME_CHARACTERS} characters; life_s: 0 to {MAX_LIFE_S:.0f} seconds")
            own = self._owner if caller.owner == ALL_OWNERS else caller.owner
            owner = wanted.owner or own
            if not caller.sees(owner):
                raise RequestError(403, "forbidden", f"this key is of owner {caller.owner!r}, and makes keys of no other")
            key, text = await asyncio.to_thread(self._keys.create, caller, owner, wanted.name, wanted.scopes, wanted.life_s)
        except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as exc:
            raise RequestError(400, "validation", str(exc)) from None
        await request.answer(201, msgspec.json.encode({**_shown(key), "key": text}), headers={"cache-control": "no-store"})

    async def revoke(self, request: Request) -> None:
        """`DELETE /v1/keys/{key_id}`."""
        caller, key_id = caller_of(request), request.parts["key_id"]
        key = self._keys.get(key_id)
        if key is None or not caller.sees(key.owner):
            near = did_you_mean(key_id[:60], [each.key_id for each in self._keys.list(caller.own())])
            raise RequestError(404, "not_found", f"there is no key {key_id[:60]!r}.{near}", error="unknown_key")
        revoked = await asyncio.to_thread(self._keys.revoke, caller, key)
        await request.answer(200, msgspec.json.encode(_shown(revoked)))

    async def audit(self, request: Request) -> None:
        """`GET /v1/audit[?limit=&owner=]`: newest first."""
        query = request.query()
        limit = request.number(query.get("limit", "100"), "limit", MAX_AUDIT)
        rows = await asyncio.to_thread(self._keys.audit, caller_of(request).own(query.get("owner", "")), limit)
        await request.answer(200, msgspec.json.encode({"data": rows}))


def _shown(key: Key) -> dict[str, object]:
    return {name: getattr(key, name) for name in Key.__struct_fields__ if name != "secret_sha256"}
