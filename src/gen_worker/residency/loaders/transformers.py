"""Models, tokenizers and processors of the transformers library."""

import copy
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from gen_worker.errors import FatalError
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
from gen_worker.residency.loaders.gguf import check_architecture
from gen_worker.residency.loaders.library import load_by_library
from gen_worker.residency.loaders.skeleton import NotUnderstoodError
from gen_worker.residency.loaders.tokenizers import share
from gen_worker.residency.loaders.weights import (
    Recipe,
    WeightFile,
    build_ahead,
    find_weights,
    identity,
    load_module,
    loaded_bytes,
    variant_of,
)
from gen_worker.sources.tokenizer_files import tokenizer_files


class TransformersLoader:
    """Models by the fast path if their files use the module's own keys, else by `from_pretrained`. Safetensors only;
    code in repositories is never run.
    """

    def accepts(self, request: LoadRequest) -> bool:
        return family(request.annotation) == "transformers" and callable(getattr(request.annotation, "from_pretrained", None))

    def plan(self, request: LoadRequest, adjust: Callable[[Any], None] | None = None) -> LoadPlan:
        """`adjust` changes the configuration before the module is built. An adjusted part is not shared."""
        torch = import_torch()
        quiet("transformers.utils.logging")
        device = request.device()
        gguf = next(iter(sorted(request.path.glob("*.gguf"))), None) if request.path.is_dir() else None
        if not _is_model(torch, request.annotation):
            return whole(request, 0, lambda: _read_aside(request))
        dtype = torch_dtype(torch, device.name, request.dtypes)
        check_is_model(request.path, request.annotation)
        if gguf is not None:
            check_architecture(gguf, request.annotation)
            found = {dtype_option(): dtype, "gguf_file": gguf.name}
            return whole(request, gguf.stat().st_size * 4, lambda: _by_library(request, device, found))
        files = find_weights(request.path, request.dtypes)
        options: dict[str, Any] = {dtype_option(): dtype, "use_safetensors": True, "variant": variant_of(files)}
        if not files:
            return whole(request, 0, lambda: _by_library(request, device, options))
        form = f"{request.annotation.__module__}.{request.annotation.__qualname__}|{device.name}|{dtype}"
        form += f"|{adjust.__module__}.{adjust.__qualname__}" if adjust is not None else ""

        recipe = cache(lambda: _recipe(request, files, dtype, adjust))

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
            lambda working: build_ahead(recipe, working, part.part_id, request.skeletons),
        )

        def assemble(parts: Any) -> Loaded:
            model = parts[part.part_id]
            return Loaded(model, tensor_bytes(model), lambda: model)

        return LoadPlan((part,), assemble, stamp=stamp_of(request.path))


def dtype_option() -> str:
    """The name by which transformers takes a precision: `dtype` since 4.56; before, it passed an unknown `dtype` on to the model, which
    failed."""
    import transformers

    numbers = [int(part) for part in transformers.__version__.split(".")[:2] if part.isdigit()]
    return "dtype" if numbers >= [4, 56] else "torch_dtype"


def check_is_model(path: Path, kind: Any) -> None:
    """`FatalError` when the folder holds no transformers model; the message says what it holds instead."""
    if not path.is_dir() or any((path / name).is_file() for name in ("config.json", "adapter_config.json")) or any(path.glob("*.gguf")):
        return
    if (path / "model_index.json").is_file():
        raise FatalError(
            f"{path.name} is a diffusers pipeline, but {kind.__name__} is the class of a single model; annotate the parameter with a "
            "pipeline, such as DiffusionPipeline, or name another model in cozy.toml"
        )
    names = ", ".join(sorted(file.name for file in path.iterdir())[:6]) or "nothing"
    raise FatalError(f"{path.name} has no config.json, which a model for {kind.__name__} needs; found {names}")


def config_of(path: Path) -> Any:
    """The configuration in a model's folder, read by the library; code in repositories is never run."""
    from transformers import AutoConfig

    gguf = next(iter(sorted(path.glob("*.gguf"))), None) if not (path / "config.json").is_file() else None
    options = {"gguf_file": gguf.name} if gguf is not None else {}
    return AutoConfig.from_pretrained(str(path), local_files_only=True, trust_remote_code=False, **options)


def _recipe(request: LoadRequest, files: tuple[WeightFile, ...], dtype: Any, adjust: Callable[[Any], None] | None) -> Recipe:
    kind = request.annotation
    config = config_of(request.path)
    if getattr(config, "quantization_config", None):
        raise NotUnderstoodError("quantised weights")
    if hasattr(kind, "_model_mapping"):
        mapped = kind._model_mapping.get(type(config), None)
        if not isinstance(mapped, type):
            raise NotUnderstoodError("several classes for this configuration")
        kind = mapped
    if keeps_wide(kind, dtype):
        raise NotUnderstoodError("parts that stay in float32")
    setattr(config, dtype_option(), dtype)
    if adjust is not None:
        adjust(config)

    def make() -> Any:
        module = kind(copy.deepcopy(config))  # a copy for this model, because authors change it
        _add_generation_config(module, request.path)
        return module

    return Recipe(make, files, dtype, cast_buffers=False)


def keeps_wide(kind: Any, dtype: Any) -> bool:
    """Whether a transformers class keeps some of its weights in float32 when loaded in this precision.

    `_keep_in_fp32_modules` applies to float16 only, `_keep_in_fp32_modules_strict` to bfloat16 as well
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
    model = load_by_library(request.annotation, request.path, {"trust_remote_code": False, **options}, why).to(device.name).eval()
    return Loaded(model, tensor_bytes(model), lambda: model)


def _read_aside(request: LoadRequest) -> Loaded:
    loaded = read_aside(request.annotation, request.path)
    share([loaded])
    return Loaded(loaded, 0, lambda: loaded)


def read_aside(kind: Any, path: Path) -> Any:
    """A tokenizer or processor: something without weights. `FatalError` for a tokenizer without its vocabulary: since
    version 5 the library creates one anyway, and it knows no words.
    """
    names = [str(file.relative_to(path)) for file in path.rglob("*") if file.is_file()] if path.is_dir() else []
    gguf = next((name for name in sorted(names) if name.endswith(".gguf") and "/" not in name), None)
    # A gguf file may also hold the vocabulary.
    inside = gguf is not None and "Tokenizer" in kind.__name__ and "tokenizer.json" not in names and "tokenizer_config.json" not in names
    options = {"gguf_file": gguf} if inside else {}
    loaded = kind.from_pretrained(str(path), local_files_only=True, trust_remote_code=False, **options)
    for tokenizer in (loaded, getattr(loaded, "tokenizer", None)):
        _, one_of = tokenizer_files(type(tokenizer).__name__, names)
        if one_of and names and not inside and not any(name in one_of for name in names):
            raise FatalError(f"{path.name} has no vocabulary for {type(tokenizer).__name__}; expected one of: {', '.join(one_of)}")
    return loaded


def _is_model(torch: Any, annotation: Any) -> bool:
    if issubclass(annotation, torch.nn.Module):
        return True
    name = annotation.__name__
    return name.startswith("AutoModel") or (name.startswith("Auto") and hasattr(annotation, "_model_mapping"))
