"""Public door: constraints on payload fields."""

from gen_worker.authoring.constraints import Clamp

__all__ = ["Clamp"]
