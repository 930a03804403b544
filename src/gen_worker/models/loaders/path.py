"""`Annotated[Path, ModelRef(...)]`: the model's folder itself, for authors who load it their own way."""

from pathlib import Path
from typing import Any

from gen_worker.models.loaders.base import Loaded, LoadRequest


class PathLoader:
    """Hands out the folder; nothing is loaded."""

    def accepts(self, annotation: Any) -> bool:
        return annotation is Path

    def load(self, request: LoadRequest) -> Loaded:
        return Loaded(request.path, 0, lambda: request.path)
