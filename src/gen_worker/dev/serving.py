"""What the runner serves now. An edit replaces all of it at once."""

from collections.abc import Iterable, Mapping

from gen_worker.authoring.signature import FunctionSpec


class Serving:
    """Functions and websockets by their slugs. Handlers look here for each request, so that the next one finds the new code."""

    def __init__(self) -> None:
        self.functions: Mapping[str, FunctionSpec] = {}
        self.websockets: Mapping[str, FunctionSpec] = {}
        self.problem = ""  # why the code as it is now is not served

    def replace(self, specs: Iterable[FunctionSpec]) -> None:
        """Serve these and no others."""
        self.problem = ""
        by_kind: dict[str, dict[str, FunctionSpec]] = {"function": {}, "websocket": {}}
        for spec in specs:
            by_kind[spec.kind][spec.name] = spec
        self.functions, self.websockets = by_kind["function"], by_kind["websocket"]
