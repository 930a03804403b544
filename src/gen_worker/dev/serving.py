"""What the runner serves now. An edit replaces everything at once."""

from collections.abc import Iterable, Mapping

from gen_worker.authoring.signature import FunctionSpec
from gen_worker.errors import FieldError


class Serving:
    """Functions and websockets by slug. Handlers look here for each request, so the next request finds new code."""

    def __init__(self) -> None:
        self.functions: Mapping[str, FunctionSpec] = {}
        self.websockets: Mapping[str, FunctionSpec] = {}
        self.problem = ""  # why the current code is not served
        self.revision = 0  # grows with each state of the code, even a broken one; a page that saw another number requests the schema again

    def replace(self, specs: Iterable[FunctionSpec]) -> None:
        """Serve these and no others."""
        self.problem = ""
        self.revision += 1
        by_kind: dict[str, dict[str, FunctionSpec]] = {"function": {}, "websocket": {}}
        for spec in specs:
            by_kind[spec.kind][spec.name] = spec
        self.functions, self.websockets = by_kind["function"], by_kind["websocket"]

    def refuse(self, problem: str) -> None:
        """The current code is not served, because of this `problem`; the functions served before stay."""
        self.revision += self.problem != problem
        self.problem = problem

    def warnings(self) -> tuple[FieldError, ...]:
        """Warnings about the code for everyone who runs a function."""
        if not self.problem:
            return ()
        text = f"this answer comes from the last working version of the code, because the current one has an error: {self.problem}"
        return (FieldError(pointer="", message=text),)
