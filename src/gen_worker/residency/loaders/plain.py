"""Any class with `from_pretrained(path)`: an author's own wrapper, or another library's."""

from gen_worker.residency.loaders.base import Loaded, LoadPlan, LoadRequest, folder_bytes, whole
from gen_worker.residency.loaders.own import measured_bytes


class PlainLoader:
    """Calls `T.from_pretrained(path)`, then moves the result to the device if it can be moved."""

    def accepts(self, request: LoadRequest) -> bool:
        return isinstance(request.annotation, type) and callable(getattr(request.annotation, "from_pretrained", None))

    def plan(self, request: LoadRequest) -> LoadPlan:
        size_bytes = folder_bytes(request.path)

        def load() -> Loaded:
            model = request.annotation.from_pretrained(str(request.path))
            if callable(getattr(model, "to", None)):
                model = model.to(request.device().name) or model
            return Loaded(model, measured_bytes(model) or size_bytes, lambda: model)

        return whole(request, size_bytes, load)
