"""Public module: the context passed to functions, and the worker itself, under the module name that existing projects import."""

from typing import TYPE_CHECKING, Any

from gen_worker.authoring.context import ActionContext
from gen_worker.authoring.realtime import RealtimeSocket

if TYPE_CHECKING:
    from gen_worker.runtime.embedded import Worker

__all__ = ["ActionContext", "RealtimeSocket", "Worker"]


def __getattr__(name: str) -> Any:
    if name != "Worker":
        raise AttributeError(f"module 'gen_worker.worker' has no attribute {name!r}")
    # Imported on first use: authors import the context from here, and do not need gRPC.
    import importlib

    return importlib.import_module("gen_worker.runtime.embedded").Worker
