"""What the runner serves now. An edit replaces all of it at once."""

from collections.abc import Iterable, Mapping

from gen_worker.authoring.signature import FunctionSpec
from gen_worker.errors import FieldError


class Serving:
    """Functions and websockets by their slugs. Handlers look here for each request, so that the next one finds the new code."""

    def __init__(self) -> None:
        self.functions: Mapping[str, FunctionSpec] = {}
        self.websockets: Mapping[str, FunctionSpec] = {}
        self.problem = ""  # why the code as it is now is not served
        self.revision = 0  # grows with each state of the code, broken ones too: a page that saw another one asks for the schema again

    def replace(self, specs: Iterable[FunctionSpec]) -> None:
        """Serve these and no others."""
        self.problem = ""
        self.revision += 1
        by_kind: dict[str, dict[str, FunctionSpec]] = {"function": {}, "websocket": {}}
        for spec in specs:
            by_kind[spec.kind][spec.name] = spec
        self.functions, self.websockets = by_kind["function"], by_kind["websocket"]

    def refuse(self, problem: str) -> None:
        """The code as it is now is not served, because of this `problem`; what was served before is served on."""
        self.revision += self.problem != problem
        self.problem = problem

    def warnings(self) -> tuple[FieldError, ...]:
        """What whoever runs a function should know of the code."""
        if not self.problem:
            return ()
        text = f"this answer comes from the last code that worked, because the code as it is now has a mistake: {self.problem}"
        return (FieldError(pointer="", message=text),)
