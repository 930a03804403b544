"""Task pipelines of the transformers library, such as `TextGenerationPipeline`.

The model is a part like any other: loaded by the fast path, and shared with functions that use it alone. The other
pieces (tokenizer, image processor, feature extractor, processor) are loaded the way the library's own `pipeline()`
does; class attributes of the pipeline tell which it needs.
"""

import copy
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from gen_worker.authoring.building import BUILDING
from gen_worker.errors import FatalError
from gen_worker.project.injectable import is_task_pipeline
from gen_worker.residency.loaders.assembled import Assembled
from gen_worker.residency.loaders.base import Loaded, LoadPlan, LoadRequest, import_torch, tensor_bytes
from gen_worker.residency.loaders.tokenizers import share
from gen_worker.residency.loaders.transformers import TransformersLoader, check_is_model, config_of, read_aside

# An argument of a pipeline's class, the attribute that says whether it needs one, and the function that loads it.
_AROUND = (
    ("tokenizer", "_load_tokenizer", "AutoTokenizer"),
    ("feature_extractor", "_load_feature_extractor", "AutoFeatureExtractor"),
    ("image_processor", "_load_image_processor", "AutoImageProcessor"),
    ("video_processor", "_load_video_processor", "AutoVideoProcessor"),
    ("processor", "_load_processor", "AutoProcessor"),
)


class TaskPipelineLoader:
    """The model by `TransformersLoader`, the rest by the library. Each run gets a light copy."""

    def accepts(self, request: LoadRequest) -> bool:
        return is_task_pipeline(request.annotation)

    def plan(self, request: LoadRequest) -> LoadPlan:
        import_torch()
        kind = request.annotation
        task, autos = task_of(kind)
        check_is_model(request.path, kind)
        auto = _class_for(kind, autos, request.path)
        plan = TransformersLoader().plan(msgspec.structs.replace(request, annotation=auto))
        form_id = f"{request.path}|{kind.__module__}.{kind.__qualname__}|{'|'.join(part.part_id for part in plan.parts)}"

        def assemble(parts: Mapping[str, Any]) -> Loaded:
            model = plan.assemble(parts).model
            kept = request.skeletons.assembled(form_id) if request.skeletons is not None else None
            if kept is None or not kept.is_of({"model": model}):
                pipe = _around(kind, task, model, request.path)
                kept = Assembled(pipe, lambda: copy.copy(pipe))
                kept.remember(tensor_bytes(model))
                if request.skeletons is not None:
                    request.skeletons.keep_assembled(form_id, kept)
            return Loaded(kept.pipe, kept.size_bytes, kept.views)

        return LoadPlan(plan.parts, assemble, stamp=plan.stamp)


def task_of(kind: Any) -> tuple[str, tuple[Any, ...]]:
    """The task of a pipeline's class (or of its base class), and the classes that load its model."""
    registry = sys.modules["transformers.pipelines"].PIPELINE_REGISTRY.supported_tasks
    for base in kind.__mro__:
        for task, entry in registry.items():
            # The class itself, or its name in versions that import it on first use.
            if entry["impl"] in (base, f"{base.__module__}.{base.__qualname__}"):
                return task, tuple(entry.get("pt") or ())
    raise FatalError(f"transformers has no task for {kind.__qualname__}")  # pragma: no cover - `is_task_pipeline` said otherwise


def _class_for(kind: Any, autos: tuple[Any, ...], path: Path) -> Any:
    config = config_of(path)
    for auto in autos:
        if auto._model_mapping.get(type(config), None) is None:
            continue
        if auto.__name__ == "AutoModelForTextToSpectrogram":
            raise FatalError(
                f"{path.name} contains a {config.model_type} model, which needs a separate vocoder model; inject its "
                "parts, such as SpeechT5ForTextToSpeech, SpeechT5HifiGan and SpeechT5Processor, or take a model that has one, such as VITS"
            )
        return auto
    names = " or ".join(auto.__name__ for auto in autos) or "a model that the library knows"
    raise FatalError(
        f"{path.name} contains a {config.model_type} model, which {kind.__name__} does not take: it wants one that {names} loads. "
        "Annotate the parameter with the pipeline of the model's task, or name another model in cozy.toml"
    )


def _around(kind: Any, task: str, model: Any, path: Path) -> Any:
    import transformers
    from transformers.pipelines import Pipeline

    found: dict[str, Any] = {}
    for name, flag, auto in _AROUND:
        wanted = getattr(kind, flag, False)
        if wanted is False:
            continue
        # None: used if the files have one. Before version 5, the library's base class said True for all of them.
        needed = wanted is True and getattr(Pipeline, flag, None) is not True
        try:
            found[name] = read_aside(getattr(transformers, auto), path)
        except (FatalError, OSError, ValueError, KeyError, ImportError, TypeError, AttributeError) as exc:
            if needed:
                raise FatalError(f"{kind.__name__} needs a {name.replace('_', ' ')}, and {path.name} has none: {_first_line(exc)}") from exc
    with BUILDING:
        pipe = kind(model=model, task=task, device=model.device, **found)
    share(found.values())
    return pipe


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
