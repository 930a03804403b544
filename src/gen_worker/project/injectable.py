"""Tells whether a parameter's type can be loaded, before anything is loaded. The loaders give the same answer."""

import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_origin

from gen_worker.authoring.adapters import LoraAdapter
from gen_worker.authoring.signature import FunctionSpec, SignatureError
from gen_worker.injection import LOADER_MARK
from gen_worker.project.standins import is_stand_in

_EXPECTED = (
    "a diffusers pipeline, a transformers class, a SentenceTransformer, onnxruntime.InferenceSession, gen_worker.LoraAdapter, "
    "pathlib.Path, or a class with from_pretrained(path)"
)


_SENTENCE_ENCODERS = frozenset({"SentenceTransformer", "CrossEncoder", "SparseEncoder", "MultiVectorEncoder"})


def check_injections(spec: FunctionSpec) -> None:
    """`SignatureError` for a parameter whose type no loader accepts."""
    own = own_loaders(spec.function)
    for injection in spec.injections:
        if not is_injectable(injection.type, own):
            name = getattr(injection.type, "__qualname__", str(injection.type))
            raise SignatureError(
                spec.function,
                f"no loader for the type of '{injection.param}', {name}; expected {_EXPECTED}",
                _fix(injection.type, name),
            )


def is_injectable(annotation: Any, own: Mapping[Any, Callable[..., Any]]) -> bool:
    """Whether one of the loaders accepts a type; `own` are the author's loaders."""
    kind = get_origin(annotation) or annotation
    if any(kind_of == annotation for kind_of in own) or annotation in (Path, LoraAdapter):
        return True
    if not isinstance(kind, type):
        return False
    is_session = kind.__module__.partition(".")[0] == "onnxruntime" and kind.__name__ == "InferenceSession"
    if is_session or is_stand_in(kind) or is_task_pipeline(kind) or is_sentence_encoder(kind):
        return True
    return callable(getattr(annotation, "from_pretrained", None))


def is_task_pipeline(annotation: Any) -> bool:
    """Whether a type is a transformers pipeline with a known task, or a subclass of one."""
    return _is_pipeline(annotation) and not known_pipelines().isdisjoint(_names_of(annotation))


def is_sentence_encoder(annotation: Any) -> bool:
    """Whether a type is a sentence-transformers model, or a subclass of one."""
    return isinstance(annotation, type) and any(
        base.__module__.partition(".")[0] == "sentence_transformers" and base.__name__ in _SENTENCE_ENCODERS for base in annotation.__mro__
    )


def known_pipelines() -> frozenset[str]:
    """Full names of the pipelines in the imported transformers that have a task."""
    registry = getattr(sys.modules.get("transformers.pipelines"), "PIPELINE_REGISTRY", None)
    implementations = [entry["impl"] for entry in registry.supported_tasks.values()] if registry is not None else []
    return frozenset(impl if isinstance(impl, str) else f"{impl.__module__}.{impl.__qualname__}" for impl in implementations)


def _is_pipeline(annotation: Any) -> bool:
    return isinstance(annotation, type) and "transformers.pipelines.base.Pipeline" in _names_of(annotation)


def _names_of(kind: type) -> list[str]:
    return [f"{base.__module__}.{base.__qualname__}" for base in kind.__mro__]


def own_loaders(function: Any) -> Mapping[Any, Callable[..., Any]]:
    """The marked loaders that a function's module defines or imports, by type."""
    found: dict[Any, Callable[..., Any]] = {}
    names: dict[str, Any] = getattr(inspect.unwrap(function), "__globals__", {})
    for value in list(names.values()):
        kind: Any = getattr(value, LOADER_MARK, None) if inspect.isfunction(value) else None
        if kind is not None:
            found[kind] = value
    return found


def _fix(annotation: Any, name: str) -> str:
    mark = f"mark a function of this module @model_loader({name}), or set MODEL_MANAGER_CLASS if your own manager loads it"
    is_function = f"{getattr(annotation, '__module__', '')}.{name}" == "transformers.pipelines.pipeline"
    if not _is_pipeline(annotation) and not is_function:
        return mark
    known = ", ".join(sorted(full.rpartition(".")[2] for full in known_pipelines()))
    known = f"annotate it with the pipeline of a task ({known}), or " if known else ""
    parts = "inject its parts, such as AutoModelForCausalLM and AutoTokenizer, and call pipeline(...) with them"
    return f"{known}{parts}" if is_function else f"{known}{parts}; or {mark}"
