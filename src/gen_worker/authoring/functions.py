"""Marks Python functions that the worker serves. A mark changes nothing else: the function can be called as before."""

from collections.abc import Callable
from typing import Any, Literal, TypeVar, overload

from gen_worker.authoring.batch import Batch
from gen_worker.authoring.task_names import TASKS, Task
from gen_worker.names import did_you_mean

F = TypeVar("F", bound=Callable[..., Any])
Kind = Literal["function", "websocket"]

_MARK = "__gen_worker_mark__"


class ResourceRequirements:
    """What one call of a function needs. `max_concurrency`: how many runs of it one worker may work on at once."""

    def __init__(self, max_concurrency: int | None = None) -> None:
        if max_concurrency is not None and (isinstance(max_concurrency, bool) or max_concurrency < 1):
            raise ValueError(f"max_concurrency={max_concurrency!r}; expected a whole number from 1 up, or None for no limit")
        self.max_concurrency = max_concurrency

    def to_dict(self) -> dict[str, int]:
        return {} if self.max_concurrency is None else {"max_concurrency": self.max_concurrency}

    def __repr__(self) -> str:
        return f"ResourceRequirements(max_concurrency={self.max_concurrency})"


class Mark:
    """What a decorator leaves on a function."""

    def __init__(self, kind: Kind, resources: ResourceRequirements, batch: Batch | None = None, task: Task | None = None) -> None:
        self.kind: Kind = kind
        self.resources = resources
        self.batch = batch
        self.task = task


@overload
def worker_function(resources: F) -> F: ...
@overload
def worker_function(
    resources: ResourceRequirements | None = None, *, batch: Batch | None = None, task: Task | None = None
) -> Callable[[F], F]: ...
def worker_function(resources: Any = None, *, batch: Batch | None = None, task: Any = None) -> Any:
    """Serve this function: `def f(ctx: ActionContext, payload: SomeStruct, ...) -> OtherStruct`.

    Works as `@worker_function`, `@worker_function()` and `@worker_function(ResourceRequirements(max_concurrency=1))`.
    With `batch=Batch(...)` the function takes `list[SomeStruct]` and returns `list[OtherStruct]`, and one call serves
    several runs. `task`: what kind of function it is (`gen_worker.tasks`), so that other programs know how to call it:
    `task="chat"` for the OpenAI client. The signature is checked at discovery, not here, so that all mistakes are
    reported together.
    """
    if batch is not None and not isinstance(batch, Batch):
        raise TypeError(f"@worker_function takes batch=Batch(...), not {batch!r}")
    if task is not None and task not in TASKS:
        near = did_you_mean(task, TASKS) if isinstance(task, str) else ""
        raise ValueError(f"task={task!r}.{near} Expected one of: {', '.join(TASKS)}")
    return _decorator("function", resources, batch, task)


@overload
def worker_websocket(resources: F) -> F: ...
@overload
def worker_websocket(resources: ResourceRequirements | None = None) -> Callable[[F], F]: ...
def worker_websocket(resources: Any = None) -> Any:
    """Serve this handler: `async def f(ctx: ActionContext, socket: RealtimeSocket, ...) -> None`."""
    return _decorator("websocket", resources)


def mark_of(function: object) -> Mark | None:
    """The mark that a decorator left on this very object, if any."""
    try:
        mark = vars(function).get(_MARK)
    except TypeError:
        return None
    return mark if isinstance(mark, Mark) else None


def _decorator(kind: Kind, resources: Any, batch: Batch | None = None, task: Task | None = None) -> Any:
    if resources is None or isinstance(resources, ResourceRequirements):
        mark = Mark(kind, resources or ResourceRequirements(), batch, task)
        return lambda function: _marked(function, mark)
    if callable(resources):
        return _marked(resources, Mark(kind, ResourceRequirements()))
    raise TypeError(f"@worker_{kind} takes a ResourceRequirements or nothing, not {resources!r}")


def _marked(function: F, mark: Mark) -> F:
    if not callable(function) or isinstance(function, (staticmethod, classmethod, type)):
        kind = f"the class {function.__name__}" if isinstance(function, type) else type(function).__name__
        raise TypeError(f"@worker_{mark.kind} marks a plain function, not {kind}; define it at module level")
    setattr(function, _MARK, mark)
    return function
