"""The public door to `ModelCache`: which models are where."""

from gen_worker.residency.accounting import ModelCache, ModelCacheStats, ModelLocation

__all__ = ["ModelCache", "ModelCacheStats", "ModelLocation"]
