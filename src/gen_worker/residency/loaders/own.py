"""Loaders written by authors: functions marked `@model_loader(TYPE)`, visible in the module of the endpoint function."""

import inspect
from collections.abc import Callable
from typing import Any

from gen_worker.errors import FatalError
from gen_worker.residency.loaders.base import Loaded, LoadPlan, LoadRequest, folder_bytes, whole


class OwnLoader:
    """Calls the author's function with the parameters it names: `path`, `device`, `dtypes`."""

    def accepts(self, request: LoadRequest) -> bool:
        return _of(request) is not None

    def plan(self, request: LoadRequest) -> LoadPlan:
        function = _of(request)
        if function is None:
            raise FatalError(f"no loader for {request.annotation!r}")
        size_bytes = folder_bytes(request.path)

        def load() -> Loaded:
            offered: dict[str, Callable[[], Any]] = {
                "path": lambda: request.path,
                "device": lambda: request.device().name,
                "dtypes": lambda: tuple(request.dtypes),
            }
            asked = inspect.signature(function).parameters
            model = function(**{name: value() for name, value in offered.items() if name in asked})
            return Loaded(model, measured_bytes(model) or size_bytes, lambda: model)

        return whole(request, size_bytes, load)


def measured_bytes(model: Any) -> int:
    """An object's size in bytes: its `size_bytes`, or the torch tensors that it holds as a module."""
    said = getattr(model, "size_bytes", None)
    if isinstance(said, int) and not isinstance(said, bool):
        return said
    if callable(getattr(model, "parameters", None)) and callable(getattr(model, "buffers", None)):
        return int(sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers())))
    return 0


def _of(request: LoadRequest) -> Callable[..., Any] | None:
    try:
        return request.own_loaders.get(request.annotation)
    except TypeError:  # an annotation that is not hashable
        return None
