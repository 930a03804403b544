"""Models, tokenizers and processors of the transformers library."""

import copy
from functools import cache
from pathlib import Path
from typing import Any

from gen_worker.residency.device import Device
from gen_worker.residency.loaders.base import (
    LoadControl,
    Loaded,
    LoadPlan,
    LoadRequest,
    PartPlan,
    family,
    import_torch,
    quiet,
    stamp_of,
    tensor_bytes,
    torch_dtype,
    whole,
)
from gen_worker.residency.loaders.library import load_by_library
from gen_worker.residency.loaders.skeleton import NotUnderstoodError
from gen_worker.residency.loaders.tokenizers import share
from gen_worker.residency.loaders.weights import (
    Recipe,
    WeightFile,
    find_weights,
    identity,
    load_module,
    loaded_bytes,
    variant_of,
)


class TransformersLoader:
    """Models by the fast path where their files have the module's own keys, else by `from_pretrained`; safetensors only, no code from
    repositories."""

    def accepts(self, request: LoadRequest) -> bool:
        return family(request.annotation) == "transformers" and callable(getattr(request.annotation, "from_pretrained", None))

    def plan(self, request: LoadRequest) -> LoadPlan:
        torch = import_torch()
        quiet("transformers.utils.logging")
        device = request.device()
        gguf = next(iter(sorted(request.path.glob("*.gguf"))), None) if request.path.is_dir() else None
        if not _is_model(torch, request.annotation):
            # A gguf file may hold the vocabulary, too.
            inside = gguf is not None and not any((request.path / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json"))
            options: dict[str, Any] = {"gguf_file": gguf.name} if inside and gguf is not None else {}
            return whole(request, 0, lambda: _by_library(request, device, options))
        dtype = torch_dtype(torch, device.name, request.dtypes)
        if gguf is not None:
            return whole(request, gguf.stat().st_size * 4, lambda: _by_library(request, device, {"dtype": dtype, "gguf_file": gguf.name}))
        files = find_weights(request.path, request.dtypes)
        options = {"dtype": dtype, "use_safetensors": True, "variant": variant_of(files)}
        if not files:
            return whole(request, 0, lambda: _by_library(request, device, options))
        form = f"{request.annotation.__module__}.{request.annotation.__qualname__}|{device.name}|{dtype}"

        recipe = cache(lambda: _recipe(request, files, dtype))

        def load(control: LoadControl) -> tuple[Any, int]:
            try:
                return load_module(recipe(), device, control, part.part_id, request.skeletons)
            except NotUnderstoodError as exc:
                control.on_fallback(str(exc))
                model = _by_library(request, device, options, str(exc)).model
                return model, tensor_bytes(model)

        part = PartPlan(
            identity(request.path, files, request.digests, "", form),
            loaded_bytes(files, dtype.itemsize),
            load,
            tuple(file.path for file in files),
        )

        def assemble(parts: Any) -> Loaded:
            model = parts[part.part_id]
            return Loaded(model, tensor_bytes(model), lambda: model)

        return LoadPlan((part,), assemble, stamp=stamp_of(request.path))


def _recipe(request: LoadRequest, files: tuple[WeightFile, ...], dtype: Any) -> Recipe:
    from transformers import AutoConfig

    kind = request.annotation
    config = AutoConfig.from_pretrained(str(request.path), local_files_only=True, trust_remote_code=False)
    if getattr(config, "quantization_config", None):
        raise NotUnderstoodError("quantised weights")
    if hasattr(kind, "_model_mapping"):
        mapped = kind._model_mapping.get(type(config), None)
        if not isinstance(mapped, type):
            raise NotUnderstoodError("several classes for this configuration")
        kind = mapped
    if keeps_wide(kind, dtype):
        raise NotUnderstoodError("parts that stay in float32")
    config.dtype = dtype

    def make() -> Any:
        module = kind(copy.deepcopy(config))  # a model's own: authors change it
        _add_generation_config(module, request.path)
        return module

    return Recipe(make, files, dtype, cast_buffers=False)


def keeps_wide(kind: Any, dtype: Any) -> bool:
    """Whether a class of transformers keeps parts of itself in float32 when it is loaded in this precision.

    `_keep_in_fp32_modules` is about float16 alone, `_keep_in_fp32_modules_strict` about bfloat16 too
    (`PreTrainedModel._get_dtype_plan`).
    """
    names = {"float16": ("_keep_in_fp32_modules", "_keep_in_fp32_modules_strict"), "bfloat16": ("_keep_in_fp32_modules_strict",)}
    return any(getattr(kind, name, None) for name in names.get(str(dtype).removeprefix("torch."), ()))


def _add_generation_config(module: Any, path: Path) -> None:
    if getattr(module, "generation_config", None) is None or not (path / "generation_config.json").is_file():
        return
    from transformers import GenerationConfig

    module.generation_config = GenerationConfig.from_pretrained(str(path), local_files_only=True)


def _by_library(request: LoadRequest, device: Device, options: dict[str, Any], why: str = "") -> Loaded:
    if not _is_model(import_torch(), request.annotation):
        loaded = request.annotation.from_pretrained(str(request.path), local_files_only=True, trust_remote_code=False, **options)
        share([loaded])
        return Loaded(loaded, 0, lambda: loaded)
    model = load_by_library(request.annotation, request.path, {"trust_remote_code": False, **options}, why).to(device.name).eval()
    return Loaded(model, tensor_bytes(model), lambda: model)


def _is_model(torch: Any, annotation: Any) -> bool:
    if issubclass(annotation, torch.nn.Module):
        return True
    name = annotation.__name__
    return name.startswith("AutoModel") or (name.startswith("Auto") and hasattr(annotation, "_model_mapping"))
