"""The files that classes of transformers and diffusers read from a folder: models, tokenizers, processors, schedulers. Pure."""

from collections.abc import Sequence

from gen_worker.sources.plan_types import Component, Knowledge, PlanError, SelectionPolicy
from gen_worker.sources.tokenizer_files import tokenizer_files
from gen_worker.sources.weights_choice import choose_weights

SUPPORT_SUFFIXES = (
    ".json", ".txt", ".csv", ".tsv", ".model", ".jinja", ".tiktoken", ".spm", ".bpe", ".codes", ".vocab", ".tokenizer", ".yaml", ".yml",
)  # fmt: skip
PROCESSOR_FILES = (
    "preprocessor_config.json",
    "processor_config.json",
    "video_preprocessor_config.json",
    "audio_tokenizer_config.json",
    "speaker_embeddings_path.json",
    "chat_template.jinja",
    "chat_template.json",
)
MODEL_FILES = ("config.json", "generation_config.json")
_SIMPLE_PROCESSORS = ("ImageProcessor", "VideoProcessor", "FeatureExtractor")


def own_files(folder: str, paths: Sequence[str], names: Sequence[str]) -> tuple[str, ...]:
    """Files with these names directly in the folder."""
    prefix = f"{folder}/" if folder else ""
    return tuple(path for path in paths if path.startswith(prefix) and path[len(prefix) :] in names)


def model_part(
    folder: str,
    paths: Sequence[str],
    known: Knowledge,
    policy: SelectionPolicy,
    *,
    configs: Sequence[str] = MODEL_FILES,
    any_precision: bool = False,
) -> Component:
    """Configuration and one set of weights."""
    weights, precision = choose_weights(folder, paths, known, policy, any_precision=any_precision)
    return Component(folder, (*own_files(folder, paths, configs), *weights), precision)


def scheduler_part(folder: str, paths: Sequence[str]) -> Component:
    return Component(folder, own_files(folder, paths, ("scheduler_config.json", "config.json")))


def tokenizer_part(folder: str, class_name: str, paths: Sequence[str]) -> Component:
    """What a tokenizer of this class reads; `PlanError` when its vocabulary is missing."""
    prefix = f"{folder}/" if folder else ""
    names = [path.removeprefix(prefix) for path in paths if path.startswith(prefix)]
    taken, one_of = tokenizer_files(class_name, names)
    if one_of and not set(one_of) & set(taken):
        where = repr(folder) if folder else "the repository"
        raise PlanError(f"{where} has none of {', '.join(one_of)}, which {class_name} reads")
    return Component(folder, tuple(prefix + name for name in taken))


def processor_part(folder: str, class_name: str, paths: Sequence[str], known: Knowledge) -> Component:
    """What an image processor or feature extractor reads. Others, such as `WhisperProcessor`, contain a tokenizer, too."""
    base = class_name.removesuffix("Pil").removesuffix("Fast")
    files = own_files(folder, paths, PROCESSOR_FILES)
    if not base.endswith(_SIMPLE_PROCESSORS):
        files += tokenizer_part(folder, "" if folder else tokenizer_class(paths, known), paths).files
    return Component(folder, tuple(dict.fromkeys(files)))


def tokenizer_class(paths: Sequence[str], known: Knowledge) -> str:
    """The class named by a repository's own configuration, as `AutoTokenizer` finds it; "" when it names none."""
    for path in ("tokenizer_config.json", "config.json"):
        if path in paths:
            named = known.object(path).get("tokenizer_class")
            if isinstance(named, str) and named:
                return named
    return ""
