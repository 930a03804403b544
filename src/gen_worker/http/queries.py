"""Which parameters a route's query may have. Any other is refused: the caller expects an effect, and it would be ignored."""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any

from gen_worker.http.asgi import Handler, Request, RequestError
from gen_worker.names import did_you_mean

Known = Mapping[tuple[str, str], Collection[str]]  # by method and path


def names_in(paths: Mapping[str, Mapping[str, Any]]) -> Known:
    """The query parameters of the routes in an OpenAPI document, by method and path."""
    return {
        (method.upper(), path): [each["name"] for each in operation.get("parameters", ()) if each["in"] == "query"]
        for path, operations in paths.items()
        for method, operation in operations.items()
        if path.startswith("/v1/")  # probes and pages are requested with arbitrary parameters
    }


def only_known(routes: Sequence[tuple[str, str, Handler]], known: Known) -> list[tuple[str, str, Handler]]:
    """The routes; for those listed in `known`, the query is checked."""
    return [
        (method, path, only_with(known[method, path], handler) if (method, path) in known else handler) for method, path, handler in routes
    ]


def only_with(names: Collection[str], handler: Handler) -> Callable[[Request], Awaitable[None]]:
    """The handler, for requests without other parameters; otherwise `RequestError` 400 with the nearest name."""

    def checked(request: Request) -> Awaitable[None]:
        if request.scope["query_string"]:  # rarely true: this check runs before the busiest route
            _check(request, names)
        return handler(request)

    return checked


def _check(request: Request, names: Collection[str]) -> None:
    for name in request.query():
        if name not in names:
            takes = f"Known here: {', '.join(sorted(names))}" if names else "This route takes none"
            raise RequestError(400, "validation", f"unknown query parameter {name[:40]!r}.{did_you_mean(name[:40], names)} {takes}")
