"""Models, tokenizers and processors of the transformers library."""

from typing import Any

from gen_worker.models.loaders.base import Loaded, LoadRequest, family, import_torch, quiet, tensor_bytes, torch_dtype


class TransformersLoader:
    """Uses the library's own `from_pretrained` on the local folder, safetensors only, no code from the repository."""

    def accepts(self, annotation: Any) -> bool:
        return family(annotation) == "transformers" and callable(getattr(annotation, "from_pretrained", None))

    def load(self, request: LoadRequest) -> Loaded:
        torch = import_torch()
        quiet("transformers.utils.logging")
        options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        if _is_model(request.annotation):
            options |= {"dtype": torch_dtype(torch, request.device, request.dtypes), "use_safetensors": True}
        loaded = request.annotation.from_pretrained(str(request.path), **options)
        if not isinstance(loaded, torch.nn.Module):
            return Loaded(loaded, 0, lambda: loaded)
        model = loaded.to(request.device).eval()
        return Loaded(model, tensor_bytes(model), lambda: model)


def _is_model(annotation: Any) -> bool:
    torch = import_torch()
    if issubclass(annotation, torch.nn.Module):
        return True
    name = annotation.__name__
    return name.startswith("AutoModel") or (name.startswith("Auto") and hasattr(annotation, "_model_mapping"))
