"""The dev runner's functions, as its front doors (OpenAI, cog, MCP) see them."""

from collections.abc import Callable, Mapping

from gen_worker.authoring.signature import FunctionSpec
from gen_worker.contract.manifest import FunctionEntry
from gen_worker.dev.serving import Serving
from gen_worker.front_doors.catalog import Target
from gen_worker.http.asgi import Request
from gen_worker.project.manifest import function_entry
from gen_worker.refs import ModelSpec


class DevCatalog:
    """Functions by their own name, or by `owner/endpoint/function[:tag]` as on the platform: here any owner and tag match."""

    def __init__(
        self, serving: Serving, function: Callable[[str], FunctionSpec], keys_of: Callable[[str], Mapping[str, ModelSpec]]
    ) -> None:
        """`function` finds one or raises 404; `keys_of` returns the models that its payload may select."""
        self._serving = serving
        self._function = function
        self._keys_of = keys_of
        self._entries: dict[str, tuple[FunctionSpec, FunctionEntry]] = {}

    def entry(self, spec: FunctionSpec) -> FunctionEntry:
        """A function's entry as in the manifest; made once for each state of the code."""
        known = self._entries.get(spec.name)
        if known is None or known[0] is not spec:
            known = self._entries[spec.name] = spec, function_entry(spec, {}, self._keys_of(spec.name))
        return known[1]

    def find(self, request: Request, name: str) -> Target:
        short = name.partition("/")[2].partition("/")[2].partition(":")[0] if name.count("/") == 2 else name
        return self._target(self._function(short))

    def all(self, request: Request) -> list[Target]:
        return [self._target(spec) for _, spec in sorted(self._serving.functions.items())]

    def _target(self, spec: FunctionSpec) -> Target:
        return Target(spec.name, f"/v1/run/{spec.name}", self.entry(spec), "local")
