"""Keys over HTTP: create, list, set budgets, revoke; and the audit."""

import asyncio

import msgspec

from gen_orchestrator.api.absent import absent
from gen_orchestrator.api.access import caller_of
from gen_orchestrator.api.plain_text import checked_text
from gen_orchestrator.auth.keys import INVOKER, Keys
from gen_orchestrator.domain import budgets
from gen_orchestrator.domain.access import ALL_OWNERS, EVERYBODY, Caller, Key
from gen_orchestrator.domain.budgets import Budgets
from gen_orchestrator.scheduling.dispatcher import Dispatcher
from gen_orchestrator.scheduling.spending import Spending
from gen_worker.http.asgi import Request, RequestError

MAX_BODY_BYTES = 64 << 10
MAX_NAME_CHARACTERS = 200
MAX_AUDIT = 1000
MAX_LIFE_S = 10 * 366 * 24 * 3600.0


class NewKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a new key. `life_s`: 0 means valid until revoked."""

    scopes: tuple[str, ...]
    name: str = ""
    owner: str = ""
    life_s: float = 0.0
    rate: str | None = None
    concurrency: int | None = None
    gpu_seconds: str | None = None


class ChangedKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a change. Missing fields are unchanged; null removes a budget."""

    rate: str | msgspec.UnsetType | None = msgspec.UNSET
    concurrency: int | msgspec.UnsetType | None = msgspec.UNSET
    gpu_seconds: str | msgspec.UnsetType | None = msgspec.UNSET


class KeyRoutes:
    """Handlers of `/v1/me`, `/v1/keys`, `/v1/audit`. `owner` owns new keys when a request names none."""

    def __init__(self, keys: Keys, owner: str, spending: Spending, dispatcher: Dispatcher) -> None:
        self._keys = keys
        self._owner = owner
        self._spending = spending
        self._dispatcher = dispatcher

    async def me(self, request: Request) -> None:
        """`GET /v1/me`: what this request's key may do, and what it has used."""
        caller = caller_of(request)
        key = self._keys.get(caller.name.removeprefix(INVOKER))
        used = await self._used(key) if key is not None else {}
        await request.answer(200, msgspec.json.encode({"owner": caller.owner, "scopes": caller.scopes, "name": caller.name, **used}))

    async def list(self, request: Request) -> None:
        """`GET /v1/keys`."""
        caller = caller_of(request)
        found = self._keys.list(caller.own(request.query().get("owner", "")))
        await request.answer(200, msgspec.json.encode({"data": [await self._shown(caller, key) for key in found]}))

    async def create(self, request: Request) -> None:
        """`POST /v1/keys`: 201 with the key's text, which is shown only this once."""
        caller = caller_of(request)
        try:
            wanted = msgspec.json.decode(await request.body(MAX_BODY_BYTES), type=NewKey)
            if len(wanted.name) > MAX_NAME_CHARACTERS or not 0 <= wanted.life_s <= MAX_LIFE_S:
                raise ValueError(f"name: at most {MAX_NAME_CHARACTERS} characters; life_s: 0 to {MAX_LIFE_S:.0f} seconds")
            checked_text(wanted.name, "the name")
            own = self._owner if caller.owner == ALL_OWNERS else caller.owner
            owner = wanted.owner or own
            if not caller.sees(owner):
                raise RequestError(403, "forbidden", f"this key is of owner {caller.owner!r}, and cannot create keys for another")
            self._refuse_the_bound(caller)
            limits = budgets.checked(wanted.rate, wanted.concurrency, wanted.gpu_seconds)
            key, text = await asyncio.to_thread(self._keys.create, caller, owner, wanted.name, wanted.scopes, wanted.life_s, limits)
        except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as exc:
            raise RequestError(400, "validation", str(exc)) from None
        await request.answer(
            201, msgspec.json.encode({**await self._shown(caller, key), "key": text}), headers={"cache-control": "no-store"}
        )

    async def change(self, request: Request) -> None:
        """`PATCH /v1/keys/{key_id}`: new budgets, from the next request on. Earlier usage counts."""
        caller, key = caller_of(request), self._find(request)
        try:
            wanted = msgspec.json.decode(await request.body(MAX_BODY_BYTES), type=ChangedKey)
            now = key.budgets
            limits = budgets.checked(
                now.rate if wanted.rate is msgspec.UNSET else wanted.rate,
                (now.concurrency or None) if wanted.concurrency is msgspec.UNSET else wanted.concurrency,
                now.gpu_seconds if wanted.gpu_seconds is msgspec.UNSET else wanted.gpu_seconds,
            )
        except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as exc:
            raise RequestError(400, "validation", str(exc)) from None
        self._refuse_the_bound(caller)
        if limits != now:
            key = await asyncio.to_thread(self._keys.set_budgets, caller, key, limits)
        await request.answer(200, msgspec.json.encode(await self._shown(caller, key)))

    async def revoke(self, request: Request) -> None:
        """`DELETE /v1/keys/{key_id}`. Its runs continue; its open sessions end, because they would take what the key may no longer send."""
        caller = caller_of(request)
        revoked = await asyncio.to_thread(self._keys.revoke, caller, self._find(request))
        open_runs = self._dispatcher.open.values()
        self._dispatcher.sessions.end_of_invoker(open_runs, f"{INVOKER}{revoked.key_id}", "key_revoked")
        await request.answer(200, msgspec.json.encode(await self._shown(caller, revoked)))

    async def audit(self, request: Request) -> None:
        """`GET /v1/audit[?limit=&owner=]`: newest first."""
        query = request.query()
        limit = request.number(query.get("limit", "100"), "limit", MAX_AUDIT)
        rows = await asyncio.to_thread(self._keys.audit, caller_of(request).own(query.get("owner", "")), limit)
        await request.answer(200, msgspec.json.encode({"data": rows}))

    def _find(self, request: Request) -> Key:
        caller, key_id = caller_of(request), request.parts["key_id"]
        key = self._keys.get(key_id)
        if key is None or not caller.sees(key.owner):
            there = self._keys.list(caller.own())
            if named := [each.key_id for each in there if each.name == key_id and not each.revoked_at]:
                ids = " and ".join(named[:5])
                what = "the name of a key; use its id" if len(named) == 1 else f"the name of {len(named)} keys; use the id of one"
                raise RequestError(404, "not_found", f"{key_id[:60]!r} is {what}: {ids}", error="unknown_key")
            known = [each.key_id for each in there]
            raise absent("key", key_id[:60], known, "cozyctl keys list", "unknown_key")
        return key

    def _refuse_the_bound(self, caller: Caller) -> None:
        """Refuse a key with budgets: it could otherwise remove them, or create another key for itself."""
        if (limits := self._keys.budgets_of(caller.name)) is not None:
            raise RequestError(403, "forbidden", f"this key has budgets ({budgets.told(limits)}), so it cannot create or change keys")

    async def _shown(self, caller: Caller, key: Key) -> dict[str, object]:
        hidden = ("secret_sha256", "budgets")
        shown = {name: getattr(key, name) for name in Key.__struct_fields__ if name not in hidden}
        return {**shown, "enforced": caller is not EVERYBODY, **await self._used(key)}

    async def _used(self, key: Key) -> dict[str, object]:
        """Its budgets, each with what is used of it."""
        limits = key.budgets
        shown = {name: value for name, value in _as_shown(limits).items() if value}
        if not limits:
            return {"budgets": shown, "used": {}}
        invoker_id = f"{INVOKER}{key.key_id}"
        spent = await self._spending.spent(invoker_id, limits)
        used = {"rate": spent.runs, "concurrency": spent.open_runs, "gpu_seconds": round(spent.gpu_s, 3)}
        return {"budgets": shown, "used": {name: used[name] for name in shown}}


def _as_shown(limits: Budgets) -> dict[str, object]:
    return {name: getattr(limits, name) for name in Budgets.__struct_fields__}
