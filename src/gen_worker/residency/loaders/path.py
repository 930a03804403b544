"""`Annotated[Path, ModelRef(...)]`: the model's folder itself, for authors who load it their own way."""

from pathlib import Path

from gen_worker.residency.loaders.base import Loaded, LoadPlan, LoadRequest, whole


class PathLoader:
    """Returns the folder; nothing is loaded."""

    def accepts(self, request: LoadRequest) -> bool:
        return request.annotation is Path

    def plan(self, request: LoadRequest) -> LoadPlan:
        return whole(request, 0, lambda: Loaded(request.path, 0, lambda: request.path))
