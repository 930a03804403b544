"""Public door: what a function is handed, under the module name that existing projects import."""

from gen_worker.authoring.context import ActionContext
from gen_worker.authoring.realtime import RealtimeSocket

__all__ = ["ActionContext", "RealtimeSocket"]
