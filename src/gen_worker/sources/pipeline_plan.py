"""The files of a diffusers pipeline, according to the components in `model_index.json`. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from gen_worker.sources.parts import SUPPORT_SUFFIXES, model_part, own_files, processor_part, scheduler_part, tokenizer_part
from gen_worker.sources.plan_types import Component, FilePlan, Knowledge, NotKnownError, PlanError, SelectionPolicy
from gen_worker.sources.variants import choose_onnx
from gen_worker.sources.weight_files import is_unsafe

INDEX = "model_index.json"
KNOWN_FOLDERS = ("transformer", "unet", "vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "scheduler")
OPTIONAL_COMPONENTS = frozenset({"safety_checker", "feature_extractor"})
# Pipelines that cannot be created without one: it is not an optional component of the class (`_optional_components`). A
# test compares this with diffusers if it is installed.
REQUIRES = {
    "feature_extractor": frozenset(
        {
            "AudioLDM2Pipeline",
            "FluxPriorReduxPipeline",
            "HunyuanVideo15ImageToVideoPipeline",
            "HunyuanVideoFramepackPipeline",
            "I2VGenXLPipeline",
            "MotifVideoImage2VideoPipeline",
            "MusicLDMPipeline",
            "PaintByExamplePipeline",
            "StableDiffusionDepth2ImgPipeline",
            "StableDiffusionImageVariationPipeline",
            "StableUnCLIPImg2ImgPipeline",
            "StableVideoDiffusionPipeline",
            "TextToVideoZeroPipeline",
            "UnCLIPImageVariationPipeline",
        }
    ),
    "safety_checker": frozenset({"TextToVideoZeroPipeline"}),
}


def plan_pipeline(paths: Sequence[str], known: Knowledge, policy: SelectionPolicy, takers: Sequence[str]) -> FilePlan:
    """`takers`: names of the pipeline classes that functions ask for. Without them the index's own class counts."""
    folders = {path.partition("/")[0] for path in paths if "/" in path}
    index = known.object(INDEX) if INDEX in known.sizes else {name: ["", ""] for name in KNOWN_FOLDERS if name in folders}
    names = _component_names(index, folders, policy, takers)
    root = [path for path in paths if "/" not in path and (path == INDEX or (policy.root_json and path.endswith(".json")))]
    if takers:
        _refuse_code(index, names, paths)
    components, left_out = [Component("", tuple(root))], []
    documents: list[str] = []
    headers: list[str] = []
    for name in names:
        inside = [path for path in paths if path.startswith(f"{name}/")]
        try:
            components.append(_component(name, _class_of(name, index.get(name)), inside, known, policy))
        except NotKnownError as more:  # collect the questions of all components
            documents += more.documents
            headers += more.headers
        left_out += [path for path in inside if is_unsafe(path)]
    if documents or headers:
        raise NotKnownError(tuple(documents), tuple(headers))
    return FilePlan("diffusers", tuple(components), tuple(left_out))


def _component_names(index: Mapping[str, Any], folders: set[str], policy: SelectionPolicy, takers: Sequence[str]) -> list[str]:
    if policy.components:
        if unknown := [name for name in policy.components if name not in folders]:
            raise PlanError(
                f"COZY_HF_COMPONENTS names {unknown[0]!r}, which the repository lacks; it has {', '.join(sorted(folders)) or 'no folders'}"
            )
        return list(policy.components)
    needed = _needed(index, takers)
    named = [name for name, value in index.items() if _is_component(name, value)]
    names = [name for name in named if name not in OPTIONAL_COMPONENTS or name in needed or policy.optional_components]
    if missing := [name for name in names if name not in folders and name not in OPTIONAL_COMPONENTS - needed]:
        raise PlanError(f"{INDEX} names the component {missing[0]!r}, but the repository has no such folder")
    names = [name for name in names if name in folders]
    if not names:
        raise PlanError(f"{INDEX} names no component that exists in the repository")
    return names


def _refuse_code(index: Mapping[str, Any], names: Sequence[str], paths: Sequence[str]) -> None:
    """Refuse a component that needs the repository's own code: better before the download than after it."""
    for name in names:
        library, class_name = _class_of(name, index.get(name))
        if library and f"{name}/{library}.py" in paths:
            raise PlanError(
                f"its component {name!r} is the class {class_name} of {name}/{library}.py: code from repositories is never run. "
                "Annotate the parameter with pathlib.Path, and build the pipeline with your own code"
            )


def _needed(index: Mapping[str, Any], takers: Sequence[str]) -> set[str]:
    """The optional components that this pipeline needs."""
    own = index.get("_class_name")
    classes = {*takers, own if isinstance(own, str) else ""}
    needed = {name for name, pipelines in REQUIRES.items() if classes & pipelines}
    encoder = index.get("image_encoder")
    if isinstance(encoder, list) and encoder != [None, None]:  # it is useless without the processor of its images
        needed.add("feature_extractor")
    return needed & index.keys()


def _is_component(name: str, value: Any) -> bool:
    """Other entries are settings of the pipeline: numbers, switches, or lists of them."""
    if name.startswith("_") or value == [None, None]:
        return False
    if not isinstance(value, list) or len(value) != 2 or not any(isinstance(part, str) for part in value):
        return False
    if "/" in name or name in ("", ".", "..") or not all(isinstance(part, str) for part in value):
        raise PlanError(f"{INDEX} describes {name[:80]!r} as {str(value)[:80]}; expected [library, class]")
    return True


def _class_of(name: str, value: Any) -> tuple[str, str]:
    """Library and class of a component; in a folder without an index, judged by its name."""
    if isinstance(value, list) and value != ["", ""]:
        return str(value[0]), str(value[1])
    for word, found in (("tokenizer", "Tokenizer"), ("scheduler", "Scheduler")):
        if word in name:
            return "", found
    return "", ""


def _component(name: str, kind: tuple[str, str], inside: Sequence[str], known: Knowledge, policy: SelectionPolicy) -> Component:
    library, class_name = kind
    if "Tokenizer" in class_name:
        return tokenizer_part(name, class_name, inside)
    if "Scheduler" in class_name:
        return scheduler_part(name, inside)
    if library == "transformers" and class_name.removesuffix("Fast").endswith(("Processor", "FeatureExtractor")):
        return processor_part(name, class_name, inside, known)
    if class_name == "OnnxRuntimeModel" or class_name.startswith("ORT"):
        files, precision = choose_onnx(inside, policy.precisions, one=False)
        return Component(name, (*own_files(name, inside, ("config.json",)), *files), precision)
    if any(path.endswith(".safetensors") or is_unsafe(path) for path in inside):
        if library in ("transformers", "diffusers"):
            return model_part(name, inside, known, policy)
        weights = model_part(name, inside, known, policy)
        return Component(name, (*_small(inside, weights.files), *weights.files), weights.precision)
    return Component(name, _small(inside))


def _small(inside: Sequence[str], but: Sequence[str] = ()) -> tuple[str, ...]:
    """The small files that a class of another library may read."""
    return tuple(path for path in inside if path.endswith(SUPPORT_SUFFIXES) and path not in but and ".index." not in path)
