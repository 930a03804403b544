"""Answers about things that do not exist."""

from collections.abc import Iterable

from gen_orchestrator.domain.access import ALL_OWNERS, Caller
from gen_worker.http.asgi import RequestError
from gen_worker.names import did_you_mean


def absent(what: str, name: str, known: Iterable[str], verb: str, error: str) -> RequestError:
    """404 for a named thing that does not exist, with the nearest name that the caller may see. `verb` lists those;
    `error` is the code word for clients.
    """
    hint = f"{did_you_mean(name, known)} List them with: {verb}".strip()
    return RequestError(404, "not_found", f"no {what} {name!r}", hint=hint, error=error)


def no_owner(owner: str, caller: Caller, error: str = "unknown_owner") -> RequestError:
    """404 for an owner that the caller may not see, or that does not exist."""
    hint = None
    if caller.owner != ALL_OWNERS:
        hint = f"this key is of owner {caller.owner}, whose endpoints are called {caller.owner}/NAME"
    return RequestError(404, "not_found", f"no owner {owner[:64]!r}", hint=hint, error=error)
