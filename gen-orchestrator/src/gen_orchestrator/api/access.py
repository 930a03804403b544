"""Checks keys and scopes for each route.

    no keys required (a laptop's loopback)    everybody is EVERYBODY: all owners, all scopes
    keys required                             no key, or an invalid one: 401; a key without the scope: 403;
                                              what belongs to another owner: 404, as if it did not exist

Handlers get their caller from `caller_of`, and answer 404 for what it may not see.
"""

import asyncio
import time
from collections.abc import Callable

from gen_orchestrator.auth.keys import Keys
from gen_orchestrator.domain.access import ALL_OWNERS, EVERYBODY, Caller, Scope
from gen_worker.http.asgi import Handler, Request, RequestError
from gen_worker.http.websocket import offered_protocols

_CALLER = "gen_orchestrator.caller"
REFUSALS_NOTED_S = 10.0
KEY_PROTOCOL = "cozy.key."


def caller_of(request: Request) -> Caller:
    """The sender of this request."""
    caller: Caller = request.scope.get(_CALLER, EVERYBODY)
    return caller


def key_of(request: Request) -> str:
    """The key of a request: its bearer token, or for a websocket the subprotocol `cozy.key.KEY`, because a page cannot
    send a header with one.
    """
    text = bearer_of(request)
    if not text and request.has_header(b"sec-websocket-protocol"):
        return next((each.removeprefix(KEY_PROTOCOL) for each in offered_protocols(request) if each.startswith(KEY_PROTOCOL)), "")
    return text


def bearer_of(request: Request) -> str:
    """The token of `Authorization: Bearer TOKEN`; empty when there is none."""
    scheme, _, text = request.header(b"authorization").partition(" ")
    return text.strip() if scheme.lower() == "bearer" else ""


class Guard:
    """Protects handlers with keys. `is_asking` False lets everybody through."""

    def __init__(self, keys: Keys, *, is_asking: bool) -> None:
        self._keys = keys
        self._is_asking = is_asking
        self._noted_s = float("-inf")

    def __call__(self, scope: Scope | None, handler: Handler, others: Callable[[Request], Caller | None] = lambda request: None) -> Handler:
        """The handler for callers with this scope; None: any scope. `others` recognises callers by tokens other than keys."""
        if not self._is_asking:
            return handler

        async def guarded(request: Request) -> None:
            text = key_of(request)
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
        unknown = "the key is not accepted: it is unknown, expired, or revoked"
        what = unknown if text else "this platform requires a key (Authorization: Bearer cz_...)"
        hint = "Store one with: cozyctl login, or set COZY_API_KEY"
        return RequestError(401, "auth", what, hint=hint, headers={"www-authenticate": 'Bearer realm="cozy"'})
