"""Any class with `from_pretrained(path)`: an author's own wrapper, or another library's."""

from typing import Any

from gen_worker.models.loaders.base import Loaded, LoadRequest


class PlainLoader:
    """Calls `T.from_pretrained(path)` and moves the result to the device if it can be moved."""

    def accepts(self, annotation: Any) -> bool:
        return isinstance(annotation, type) and callable(getattr(annotation, "from_pretrained", None))

    def load(self, request: LoadRequest) -> Loaded:
        model = request.annotation.from_pretrained(str(request.path))
        if callable(getattr(model, "to", None)):
            model = model.to(request.device) or model
        size_bytes = sum(file.stat().st_size for file in request.path.rglob("*") if file.is_file()) if request.path.is_dir() else 0
        return Loaded(model, size_bytes, lambda: model)
