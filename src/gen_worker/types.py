"""Public module: types for payloads and outputs."""

from gen_worker.authoring.assets import Asset

__all__ = ["Asset"]
