"""Public door: types that payloads and outputs are made of."""

from gen_worker.authoring.assets import Asset

__all__ = ["Asset"]
