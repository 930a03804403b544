"""Chooses which files of a repository a model needs: what the classes that load it read, and nothing else. Pure.

What a class reads is declared somewhere, and the plan looks there: `model_index.json` of a pipeline, `modules.json` of
a sentence encoder, the vocabulary files of a tokenizer's class, index files of shards, `adapter_config.json`. File
names alone decide only when nothing is declared. Code (`.py`), pickles and other formats that can run code when they
are loaded are never part of a plan.

Planning asks for more as it goes: a plan that needs the content of a JSON file, or the precision in a weight file's
header, says so in `Needs`.
"""

from collections.abc import Callable, Sequence

from gen_worker.sources.parts import (
    MODEL_FILES,
    PROCESSOR_FILES,
    SUPPORT_SUFFIXES,
    model_part,
    own_files,
    processor_part,
    scheduler_part,
    tokenizer_class,
    tokenizer_part,
)
from gen_worker.sources.pipeline_plan import INDEX, OPTIONAL_COMPONENTS, plan_pipeline
from gen_worker.sources.plan_types import Component, FilePlan, Knowledge, Needs, NotKnownError, PlanError, SelectionPolicy
from gen_worker.sources.sentence_plan import MODULES, plan_sentence_encoder
from gen_worker.sources.variants import choose_gguf, choose_onnx
from gen_worker.sources.weight_files import ADAPTER_STEMS, is_index, is_unsafe
from gen_worker.sources.weights_choice import choose_weights, no_weights

__all__ = ["OPTIONAL_COMPONENTS", "Component", "FilePlan", "Knowledge", "Needs", "PlanError", "SelectionPolicy", "plan_files"]

MAX_SUPPORT_BYTES = 64 << 20
ADAPTER_CONFIG = "adapter_config.json"
SMALL_FILES = "gen_worker.small_files"  # a taker that reads configuration and vocabulary, besides what the other takers read
_SKIPPED_FOLDERS = ("onnx", "openvino", "coreml", "flax", "tf", "original", ".git", "runs")
_CTRANSLATE_VOCABULARIES = tuple(
    f"{name}{suffix}"
    for name in ("vocabulary", "shared_vocabulary", "source_vocabulary", "target_vocabulary")
    for suffix in (".txt", ".json")
)

Plan = Callable[[Sequence[str], Knowledge, SelectionPolicy], FilePlan]


def plan_files(known: Knowledge, policy: SelectionPolicy) -> FilePlan | Needs:
    """The files of a model, or what must be known first. `PlanError` when nothing fits."""
    paths = sorted(known.sizes)
    if policy.full_repo:
        return FilePlan("everything", (Component("", tuple(p for p in paths if not p.startswith(".git"))),))
    try:
        plan = _joined([_for_taker(taker, paths, known, policy) for taker in policy.takers or ("",)])
    except NotKnownError as more:
        return Needs(tuple(dict.fromkeys(more.documents)), tuple(dict.fromkeys(more.headers)))
    total = sum(known.sizes[path] for path in plan.files)
    if total > policy.max_bytes:
        raise PlanError(
            f"excessively large: {total / 1e9:.1f} GB in {len(plan.files)} files, more than {policy.max_bytes / 1e9:.0f} GB; "
            "raise COZY_HF_MAX_GB if that is what you want"
        )
    return plan


def _joined(plans: Sequence[FilePlan]) -> FilePlan:
    """One plan for all classes that load the model."""
    parts: dict[str, Component] = {}
    for part in (part for plan in plans for part in plan.components):
        before = parts.get(part.name, Component(part.name, ()))
        parts[part.name] = Component(part.name, tuple(dict.fromkeys(before.files + part.files)), before.precision or part.precision)
    kinds = dict.fromkeys(plan.kind for plan in plans)
    return FilePlan("+".join(kinds), tuple(parts.values()), tuple(dict.fromkeys(path for plan in plans for path in plan.left_out)))


def _for_taker(taker: str, paths: Sequence[str], known: Knowledge, policy: SelectionPolicy) -> FilePlan:
    """The files that this class reads. An unknown class gets the repository as published."""
    family, name = taker.partition(".")[0], taker.rpartition(".")[2]
    match family:
        case "transformers":
            return _for_transformers(name, paths, known, policy)
        case "diffusers":
            return _for_diffusers(name, paths, known, policy)
        case "onnxruntime":
            return _onnx(paths, policy, one=True)
        case "optimum" if name.startswith("ORT"):
            files = own_files("", paths, (*MODEL_FILES, *PROCESSOR_FILES))
            return _with(files, _onnx(paths, policy, one=False))
        case "sentence_transformers" if MODULES in paths and name != "CrossEncoder":
            return plan_sentence_encoder(paths, known, policy)
        case "sentence_transformers":
            return _with(_tokenizer(paths, known).files, _model(paths, known, policy))
        case "peft":
            return _adapter(paths, known, policy)
        case "gen_worker" if taker == SMALL_FILES:
            return FilePlan("files", (Component("", _support(paths, known)),))
        case "gen_worker" if name == "LoraAdapter":
            return _adapter(paths, known, policy)
        case "timm":
            return _model(paths, known, policy)
        case "open_clip":
            return _open_clip(paths, known, policy)
        case "llama_cpp":
            return _gguf(paths, policy)
        case "faster_whisper" | "ctranslate2" | "whisperx":
            return _ctranslate(paths, policy)
        case _:
            return _as_published(paths, known, policy)


# Classes of libraries.


def _for_transformers(name: str, paths: Sequence[str], known: Knowledge, policy: SelectionPolicy) -> FilePlan:
    base = name.removesuffix("Fast")
    if base.endswith("Tokenizer"):
        if not any(path in paths for path in ("tokenizer.json", "tokenizer_config.json")) and _has_gguf_alone(paths):
            return _gguf(paths, policy)  # the file contains the vocabulary
        part = _tokenizer(paths, known) if name == "AutoTokenizer" else tokenizer_part("", name, paths)
        return FilePlan("tokenizer", (Component("", (*own_files("", paths, ("config.json",)), *part.files)),))
    if base.removesuffix("Pil").endswith(("Processor", "FeatureExtractor")):
        part = processor_part("", name, paths, known)
        return FilePlan("processor", (Component("", (*own_files("", paths, ("config.json",)), *part.files)),))
    if base.endswith("Config"):
        return FilePlan("config", (Component("", own_files("", paths, MODEL_FILES)),))
    if name.endswith("Pipeline"):
        return _as_published(paths, known, policy)
    if _has_gguf_alone(paths):
        return _with(own_files("", paths, MODEL_FILES), _gguf(paths, policy))
    return _model(paths, known, policy)


def _for_diffusers(name: str, paths: Sequence[str], known: Knowledge, policy: SelectionPolicy) -> FilePlan:
    if "Pipeline" in name:
        return _as_published(paths, known, policy, takers=(name,))
    if "Scheduler" in name:
        return FilePlan("scheduler", (scheduler_part("", paths),))
    return _model(paths, known, policy)


def _tokenizer(paths: Sequence[str], known: Knowledge) -> Component:
    return tokenizer_part("", tokenizer_class(paths, known), paths)


def _model(paths: Sequence[str], known: Knowledge, policy: SelectionPolicy) -> FilePlan:
    """A model at the root, without adapter files: an adapter's configuration would make the library load another model."""
    here = [path for path in paths if "/" not in path]
    part = model_part("", here, known, policy)
    return FilePlan("transformers" if "config.json" in here else "single_file", (part,), tuple(path for path in here if is_unsafe(path)))


def _adapter(paths: Sequence[str], known: Knowledge, policy: SelectionPolicy) -> FilePlan:
    here = [path for path in paths if "/" not in path]
    weights, precision = choose_weights("", here, known, policy, stems=ADAPTER_STEMS)
    return FilePlan("adapter", (Component("", (*own_files("", here, (ADAPTER_CONFIG,)), *weights), precision),))


def _open_clip(paths: Sequence[str], known: Knowledge, policy: SelectionPolicy) -> FilePlan:
    here = [path for path in paths if "/" not in path]
    weights, precision = choose_weights("", here, known, policy, stems=("open_clip_model", "open_clip_pytorch_model"))
    files = (*own_files("", here, ("open_clip_config.json",)), *tokenizer_part("", "", here).files, *weights)
    return FilePlan("open_clip", (Component("", files, precision),))


def _ctranslate(paths: Sequence[str], policy: SelectionPolicy) -> FilePlan:
    """CTranslate2's `model.bin` is its own format, not a pickle. Only its own libraries get it."""
    names = ("model.bin", "config.json", "tokenizer.json", "preprocessor_config.json", *_CTRANSLATE_VOCABULARIES)
    files = own_files("", paths, names)
    if "model.bin" not in files or not set(files) & set(_CTRANSLATE_VOCABULARIES):
        raise PlanError("no CTranslate2 model: expected model.bin and vocabulary.json or vocabulary.txt")
    return FilePlan("ctranslate2", (Component("", files),))


def _gguf(paths: Sequence[str], policy: SelectionPolicy) -> FilePlan:
    if not any(path.endswith(".gguf") for path in paths):
        raise PlanError("the repository has no .gguf file for llama.cpp; use another class for this model")
    files, precision = choose_gguf(paths, policy.precisions)
    return FilePlan("gguf", (Component("", tuple(files), precision),))


def _onnx(paths: Sequence[str], policy: SelectionPolicy, *, one: bool) -> FilePlan:
    if not any(path.endswith(".onnx") for path in paths):
        raise PlanError("the repository has no .onnx file for an onnxruntime session; use another class for this model")
    files, precision = choose_onnx(paths, policy.precisions, one=one)
    return FilePlan("onnx", (Component("", tuple(files), precision),))


def _with(files: Sequence[str], plan: FilePlan) -> FilePlan:
    return _joined([plan, FilePlan(plan.kind, (Component("", tuple(files)),))])


def _has_gguf_alone(paths: Sequence[str]) -> bool:
    return any(path.endswith(".gguf") for path in paths) and not any(path.endswith(".safetensors") and "/" not in path for path in paths)


# Repositories as published.


def _as_published(paths: Sequence[str], known: Knowledge, policy: SelectionPolicy, takers: Sequence[str] = ()) -> FilePlan:
    """The main model of a repository with everything that belongs to it."""
    folders = {path.partition("/")[0] for path in paths if "/" in path}
    if INDEX in known.sizes or folders & {"transformer", "unet"}:
        return plan_pipeline(paths, known, policy, takers)
    if MODULES in known.sizes:
        return _with(_support(paths, known), plan_sentence_encoder(paths, known, policy))
    here = [path for path in paths if "/" not in path]
    if policy.components:
        return _chosen_folders(paths, folders, known, policy)
    if any(path.endswith(".safetensors") for path in here):
        adapter = ADAPTER_CONFIG in here and "config.json" not in here
        plan = _adapter(paths, known, policy) if adapter else _model(paths, known, policy)
        return _with(_support(paths, known, but=() if adapter else (ADAPTER_CONFIG,)), plan)
    if any(path.endswith(".gguf") for path in paths):
        return _with(_support(paths, known), _gguf(paths, policy))
    if any(path.endswith(".onnx") for path in paths):
        return _with(_support(paths, known), _onnx(paths, policy, one=False))
    if any(is_unsafe(path) for path in here):
        raise no_weights("", here, policy)
    if weights := [path for path in paths if path.endswith(".safetensors")]:
        raise PlanError(
            f"its weights are in folders ({', '.join(sorted({path.rpartition('/')[0] for path in weights})[:6])}), and nothing says which "
            "belong together. Name the folders in COZY_HF_COMPONENTS"
        )
    support = _support(paths, known)
    if not support:
        raise PlanError(
            "no files of a model: no model_index.json, no safetensors, no gguf, no onnx; COZY_HF_FULL_REPO_DOWNLOAD=1 takes all"
        )
    return FilePlan("files", (Component("", support),))


def _chosen_folders(paths: Sequence[str], folders: set[str], known: Knowledge, policy: SelectionPolicy) -> FilePlan:
    """The folders named by COZY_HF_COMPONENTS, in a repository that is not a pipeline: all their weights, as
    safetensors in an allowed precision.
    """
    components = []
    for name in policy.components:
        inside = [path for path in paths if path.startswith(f"{name}/")]
        if not inside:
            raise PlanError(
                f"COZY_HF_COMPONENTS names {name!r}, which is not in the repository; it has {', '.join(sorted(folders)) or 'no folders'}"
            )
        weights = [path for path in inside if path.endswith(".safetensors")]
        if unread := [path for path in weights if path not in known.precisions]:
            raise NotKnownError(headers=tuple(unread))
        usable = [path for path in weights if known.precision(path) in (*policy.precisions, None)]
        small = [path for path in inside if path.endswith(SUPPORT_SUFFIXES) and known.sizes[path] <= MAX_SUPPORT_BYTES]
        others = [path for path in inside if path.endswith((".onnx", ".onnx_data", ".onnx.data", ".gguf"))]
        components.append(Component(name, (*small, *usable, *others)))
    return FilePlan("folders", tuple(components))


def _support(paths: Sequence[str], known: Knowledge, but: Sequence[str] = ()) -> tuple[str, ...]:
    """Configuration and vocabulary: small files of known kinds, never code."""
    return tuple(
        path
        for path in paths
        if path.endswith(SUPPORT_SUFFIXES)
        and path not in but
        and not is_index(path)
        and not path.endswith(".bin.index.json")
        and known.sizes[path] <= MAX_SUPPORT_BYTES
        and path.partition("/")[0] not in _SKIPPED_FOLDERS
        and not path.startswith(".")
    )
