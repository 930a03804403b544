"""Pipelines of the diffusers library, component by component."""

import copy
import importlib
from collections.abc import Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import msgspec

from gen_worker.authoring.building import BUILDING
from gen_worker.errors import FatalError
from gen_worker.residency.device import Device
from gen_worker.residency.loaders.assembled import Assembled
from gen_worker.residency.loaders.base import (
    LoadControl,
    Loaded,
    LoadPlan,
    LoadRequest,
    PartPlan,
    family,
    folder_bytes,
    import_torch,
    quiet,
    stamp_of,
    tensor_bytes,
    torch_dtype,
    whole,
)
from gen_worker.residency.loaders.fp8 import DENOISERS, fp8_bytes, keep_in_fp8, load_in_fp8, wants_fp8
from gen_worker.residency.loaders.frugal import VAE_TILING, device_bytes, is_kept_off, keep_off, steps_of, tile
from gen_worker.residency.loaders.library import load_by_library
from gen_worker.residency.loaders.run_views import RunViews
from gen_worker.residency.loaders.skeleton import NotUnderstoodError
from gen_worker.residency.loaders.tokenizers import share
from gen_worker.residency.loaders.transformers import dtype_option, keeps_wide
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
from gen_worker.sources.gather import read_object
from gen_worker.sources.weight_files import precision_of

OPTIONAL_PARTS = ("safety_checker", "feature_extractor", "image_encoder", "image_processor")
_LIBRARIES = ("diffusers", "transformers")


class DiffusersLoader:
    """Loads a pipeline folder. Components with equal weights are shared with other pipelines. Each run gets a light
    copy with its own scheduler (`RunViews`).
    """

    def accepts(self, request: LoadRequest) -> bool:
        return family(request.annotation) == "diffusers" and callable(getattr(request.annotation, "from_pretrained", None))

    def plan(self, request: LoadRequest) -> LoadPlan:
        torch = import_torch()
        quiet("diffusers.utils.logging", "transformers.utils.logging")
        device = request.device()
        dtype = torch_dtype(torch, device.name, (*request.dtypes, *_own_precision(request)))
        index = request.path / "model_index.json"
        if not index.is_file():
            return whole(request, folder_bytes(request.path), lambda: _by_library(request, device, dtype))
        described = read_object(index)
        savings = steps_of(device)
        taken = savings[: request.saving_level]
        names: dict[str, str] = {}  # component name to part id
        parts: dict[str, PartPlan] = {}
        for name, value in described.items():
            folder = request.path / name
            if not is_component(name, value) or not folder.is_dir():
                continue
            files = find_weights(folder, request.dtypes)
            if files:
                form = _Form(device, dtype, off=is_kept_off(name, taken), fp8=wants_fp8(name, request.dtypes))
                part = _part(folder, value, files, request, form)
                names[name] = part.part_id
                parts[part.part_id] = part
        missing = _missing_optional(described, request.path)

        form_id = f"{request.path}|{request.annotation.__module__}.{request.annotation.__qualname__}|{device.name}|{dtype}|{taken}"

        def assemble(loaded: Mapping[str, Any]) -> Loaded:
            modules = {name: loaded[part_id] for name, part_id in names.items()}
            kept = request.skeletons.assembled(form_id) if request.skeletons is not None else None
            if kept is None or not kept.is_of(modules):
                pipe = _assembled(request, modules, missing, dtype)
                kept = Assembled(pipe, RunViews(pipe))
                _settle(pipe, device.name, but=[name for name in modules if is_kept_off(name, taken)])
                if VAE_TILING in taken:
                    tile(modules)
                kept.remember(sum(map(tensor_bytes, modules.values())))
                if request.skeletons is not None:
                    request.skeletons.keep_assembled(form_id, kept)
            return Loaded(kept.pipe, kept.size_bytes, kept.views)

        return LoadPlan(tuple(parts.values()), assemble, savings, stamp_of(request.path))


def _assembled(request: LoadRequest, modules: Mapping[str, Any], missing: Mapping[str, Any], dtype: Any) -> Any:
    with BUILDING:
        return request.annotation.from_pretrained(
            str(request.path),
            **modules,
            **missing,
            **{_dtype_option(): dtype},
            local_files_only=True,
            use_safetensors=True,
            low_cpu_mem_usage=False,  # there are no weights to load, and True warns when accelerate is not installed
        )


class _Form(msgspec.Struct, frozen=True):
    """How a component is kept on its device. `off`: its weights wait in host memory; `fp8`: its weights are kept in
    eight bits. In either form it is not shared with ordinary pipelines.
    """

    device: Device
    dtype: Any
    off: bool
    fp8: bool

    def __str__(self) -> str:
        return f"{self.device.name}|{self.dtype}{'|off' if self.off else ''}{'|fp8' if self.fp8 else ''}"


def _part(folder: Path, value: Sequence[str], files: tuple[WeightFile, ...], request: LoadRequest, form: _Form) -> PartPlan:
    library, class_name = value
    device, dtype = form.device, form.dtype
    part_id = identity(folder, files, request.digests, f"{folder.name}/", f"{library}.{class_name}|{form}")
    skeletons = None if form.off else request.skeletons

    kind = class_of(library, class_name)
    recipe = cache(lambda: _recipe(kind, folder, files, dtype))

    def load(control: LoadControl) -> tuple[Any, int]:
        module, size_bytes = load_on_device(control)
        if not form.off:
            return module, size_bytes
        keep_off(module, device.name)
        device.collect()
        return module, device_bytes(module, device.name)

    def load_on_device(control: LoadControl) -> tuple[Any, int]:
        try:
            return (load_in_fp8 if form.fp8 else load_module)(recipe(), device, control, part_id, skeletons)
        except NotUnderstoodError as exc:
            control.on_fallback(f"{folder.name}: {exc}")
            option = _dtype_option() if library == "diffusers" else dtype_option()
            module = load_by_library(kind, folder, {option: dtype, "use_safetensors": True, "variant": variant_of(files)}, str(exc))
            if form.fp8:
                keep_in_fp8(module)
            module = module.to(device.name).eval()
            return module, tensor_bytes(module)

    return PartPlan(
        part_id,
        (fp8_bytes if form.fp8 else loaded_bytes)(files, dtype.itemsize),
        load,
        tuple(file.path for file in files),
        None if form.off or form.fp8 else lambda working: build_ahead(recipe, working, part_id, skeletons),
    )


def _own_precision(request: LoadRequest) -> tuple[str, ...]:
    """The precision to compute in when only eight bits are asked for: the one the weights were saved in."""
    if tuple(request.dtypes) != ("fp8",):
        return ()
    found = [find_weights(request.path / name, request.dtypes) for name in DENOISERS if (request.path / name).is_dir()]
    precision = precision_of([entry for files in found for file in files for entry in file.entries])
    return (precision,) if precision == "bf16" else ()


def _recipe(kind: Any, folder: Path, files: tuple[WeightFile, ...], dtype: Any) -> Recipe:
    """How the library builds a component; `NotUnderstoodError` for components that the library treats specially."""
    if read_object(folder / "config.json").get("quantization_config"):
        raise NotUnderstoodError("quantised weights")
    if hasattr(kind, "load_config"):  # of the diffusers library
        wide = tuple(getattr(kind, "_keep_in_fp32_modules", None) or ()) if dtype.itemsize < 4 else ()
        config = kind.load_config(str(folder))
        make = partial(kind.from_config, config)
        return Recipe(make, files, dtype, cast_buffers=not wide, wide=lambda name: not set(wide).isdisjoint(name.split(".")))
    if keeps_wide(kind, dtype):
        raise NotUnderstoodError("parts that stay in float32")
    settings = kind.config_class.from_pretrained(str(folder))
    return Recipe(lambda: kind(copy.deepcopy(settings)), files, dtype, cast_buffers=False)


def is_component(name: str, value: Any) -> bool:
    """Whether an entry of model_index.json names a component's class."""
    if name.startswith("_") or not isinstance(value, list) or len(value) != 2 or not all(isinstance(part, str) for part in value):
        return False
    return value[0] in _LIBRARIES or class_of(*value) is not None


def class_of(library: str, class_name: str) -> Any:
    """A component's class. `library` may also be a pipeline's module: `["stable_diffusion", "StableDiffusionSafetyChecker"]`."""
    if library in _LIBRARIES:
        return getattr(importlib.import_module(library), class_name)
    pipelines = importlib.import_module("diffusers.pipelines")
    return getattr(getattr(pipelines, library, None), class_name, None)


def _missing_optional(index: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Optional components that the folder lacks, as arguments that say so."""
    lacking: dict[str, Any] = {name: None for name in OPTIONAL_PARTS if name in index and not (path / name).is_dir()}
    if "safety_checker" in lacking and "requires_safety_checker" in index:
        lacking["requires_safety_checker"] = False
    if absent := [n for n, v in index.items() if is_component(n, v) and n not in lacking and not (path / n).is_dir()]:
        raise FatalError(f"the pipeline's {absent[0]!r} is missing in {path.name}; expected a folder of that name")
    return lacking


def _settle(pipe: Any, device: str, but: Sequence[str] = ()) -> None:
    """Move everything to the device and turn off progress bars, because progress is reported as events."""
    torch = import_torch()
    for name, part in pipe.components.items():
        if name in but or not isinstance(part, torch.nn.Module):
            continue
        if next((p.device.type for p in part.parameters()), "") != torch.device(device).type:
            part.to(device)
    share(pipe.components.values())
    pipe.set_progress_bar_config(disable=True)


def _by_library(request: LoadRequest, device: Device, dtype: Any) -> Loaded:
    """A single model class of the library, or a pipeline without an index."""
    import diffusers

    torch, kind = import_torch(), request.annotation
    options = {_dtype_option(): dtype, "use_safetensors": True, "low_cpu_mem_usage": False}
    if issubclass(kind, (diffusers.ModelMixin, diffusers.AutoModel)):
        module = load_by_library(kind, request.path, options).to(device.name).eval()
        return Loaded(module, tensor_bytes(module), lambda: module)
    with BUILDING:
        model = kind.from_pretrained(str(request.path), local_files_only=True, **options)
    if not hasattr(model, "components"):  # a scheduler
        return Loaded(model, 0, lambda: model)
    _settle(model, device.name)
    modules = [part for part in model.components.values() if isinstance(part, torch.nn.Module)]
    return Loaded(model, sum(map(tensor_bytes, modules)), RunViews(model))


def _dtype_option() -> str:
    """The option's name: `dtype` since the library deprecated `torch_dtype`."""
    from diffusers.utils import deprecation_utils

    return "dtype" if hasattr(deprecation_utils, "_TORCH_DTYPE_DEPRECATION_MESSAGE") else "torch_dtype"
