"""Which functions the caller of a front door can use."""

from collections.abc import Sequence
from typing import Protocol

import msgspec

from gen_worker.contract.manifest import FunctionEntry, Schema
from gen_worker.front_doors.inside import in_path
from gen_worker.http.asgi import Request, RequestError


class Target(msgspec.Struct, frozen=True):
    """The function behind a name. `path`: the route that runs it; `created`: unix seconds. `id_path`: the route that
    runs it by PUT with an id chosen by the caller; without such a route, the id goes into the run's body as `run_id`.
    """

    name: str
    path: str
    entry: FunctionEntry
    owner: str
    created: int = 0
    id_path: str = ""

    def way(self, run_id: str) -> tuple[str, str]:
        """Method and path of the route that starts a run; `run_id` if the caller chose one."""
        return ("PUT", self.id_path.format(run_id=in_path(run_id))) if run_id and self.id_path else ("POST", self.path)

    @property
    def task(self) -> str:
        return self.entry.task or ""

    @property
    def fields(self) -> dict[str, Schema]:
        """The schemas of its payload's fields, by name."""
        return fields_of(self.entry.input_schema)


class Catalog(Protocol):
    """The functions of a program that has front doors."""

    def find(self, request: Request, name: str) -> Target:
        """The function that a name means for this caller; `RequestError` 404 names the nearest one."""
        ...

    def all(self, request: Request) -> Sequence[Target]:
        """Every function that this caller may see, sorted by name."""
        ...


def find_for(catalog: Catalog, request: Request, name: str, task: str) -> Target:
    """The function, if it has this task. `RequestError` 400 says what to write."""
    target = catalog.find(request, name)
    if target.task != task:
        is_now = f"its task is {target.task!r}" if target.task else "it declares no task"
        fix = f"mark it with @worker_function(task={task!r}), with the Structs of gen_worker.tasks"
        raise RequestError(400, "validation", f"{name[:200]!r} is not a function for {task}: {is_now}", error="wrong_task", hint=fix)
    return target


def fields_of(schema: Schema) -> dict[str, Schema]:
    """The schemas of a Struct's fields, by name."""
    definition = schema.get("$defs", {}).get(schema.get("$ref", "").rpartition("/")[2], schema)
    found: dict[str, Schema] = definition.get("properties", {})
    return found
