"""Public module: constraints on payload fields."""

from gen_worker.authoring.clamp import Clamp

__all__ = ["Clamp"]
