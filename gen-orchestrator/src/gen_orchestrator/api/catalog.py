"""The platform's functions for its front doors: those of the caller's owner; for an operator all."""

from gen_orchestrator.api.access import caller_of
from gen_orchestrator.api.runs import RunRoutes, function_and_tag
from gen_orchestrator.hub.registry import PROD, NotFoundError, Registry
from gen_worker.front_doors.catalog import Target
from gen_worker.http.asgi import Request, RequestError
from gen_worker.names import did_you_mean


class PlatformCatalog:
    """Functions by `owner/endpoint/function[:tag]`."""

    def __init__(self, registry: Registry, runs: RunRoutes) -> None:
        self._registry = registry
        self._runs = runs

    def find(self, request: Request, name: str) -> Target:
        parts = name.split("/")
        if len(parts) != 3 or not all(parts):
            known = [target.name for target in self.all(request)]
            short = [each for each in known if each.rpartition("/")[2] == name]
            near = f" Did you mean {short[0]!r}?" if short else did_you_mean(name[:200], known)
            raise RequestError(
                404,
                "not_found",
                f"{name[:200]!r} is not the name of a function: expected owner/endpoint/function[:tag].{near}",
                error="unknown_function",
            )
        owner, endpoint, function = parts
        function, tag = function_and_tag(function)
        resolved = self._runs.resolve(request, owner, endpoint, function, tag)
        whole = f"{owner}/{endpoint}/{function}:{tag}"
        return Target(name, f"/v1/{whole}", resolved.entry, owner, id_path=_by_id(whole))

    def all(self, request: Request) -> list[Target]:
        found = []
        for tag in self._registry.tags(caller_of(request).own()):
            try:
                entries = self._registry.manifest(tag.release_id).functions
            except NotFoundError:  # its row is damaged; calls report it
                continue
            for entry in entries:
                if entry.name == tag.function:
                    name = f"{tag.owner}/{tag.endpoint}/{tag.function}{'' if tag.tag == PROD else ':' + tag.tag}"
                    found.append(Target(name, f"/v1/{name}", entry, tag.owner, int(tag.moved_at), _by_id(name)))
        return sorted(found, key=lambda target: target.name)


def _by_id(name: str) -> str:
    return f"/v1/runs/{{run_id}}?function={name}"
