"""Public module: the decorators, under the module name that existing projects import."""

from gen_worker.authoring.functions import ResourceRequirements, worker_function, worker_websocket

__all__ = ["ResourceRequirements", "worker_function", "worker_websocket"]
