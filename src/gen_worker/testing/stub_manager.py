"""A model manager for tests of endpoints: models are fetched but not loaded."""

from typing import Any

from gen_worker.authoring.model_interface import ModelManager


class StubModelManager(ModelManager):
    """Passes functions `{"model_id": ..., "model_path": ...}` for a model. Their parameters are then `Annotated[dict,
    ModelRef(...)]`.

    Set `MODEL_MANAGER_CLASS=gen_worker.testing.stub_manager:StubModelManager`.
    """

    def __init__(self) -> None:
        self._loaded: dict[str, dict[str, str | None]] = {}

    def load(self, model_ref: str, local_path: str | None = None, **opts: Any) -> dict[str, str | None]:
        return self._loaded.setdefault(model_ref, {"model_id": model_ref, "model_path": local_path})

    def get(self, model_ref: str) -> dict[str, str | None] | None:
        return self._loaded.get(model_ref)

    def unload(self, model_ref: str) -> None:
        self._loaded.pop(model_ref, None)

    def stats(self) -> dict[str, Any]:
        return {"models": sorted(self._loaded)}
