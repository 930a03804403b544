"""The files of a sentence encoder, according to its `modules.json` (sentence-transformers). Pure."""

from collections.abc import Sequence
from typing import Any

from gen_worker.sources.parts import PROCESSOR_FILES, SUPPORT_SUFFIXES, model_part, own_files, tokenizer_class, tokenizer_part
from gen_worker.sources.plan_types import Component, FilePlan, Knowledge, NotKnownError, PlanError, SelectionPolicy
from gen_worker.sources.weight_files import is_index, is_unsafe

MODULES = "modules.json"
MAX_MODULES = 64
_OWN = (MODULES, "config_sentence_transformers.json")
_TRANSFORMER = (
    "sentence_bert_config.json",
    *(f"sentence_{name}_config.json" for name in ("roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")),
)


def plan_sentence_encoder(paths: Sequence[str], known: Knowledge, policy: SelectionPolicy) -> FilePlan:
    """Each module's files. The transformer's weights are taken in an allowed precision; those of small modules behind
    it, such as `2_Dense`, in the precision they are published in.
    """
    components, left_out = [Component("", own_files("", paths, _OWN))], []
    documents: list[str] = []
    headers: list[str] = []
    for folder, kind in modules_of(known.document(MODULES)):
        prefix = f"{folder}/" if folder else ""
        inside = [path for path in paths if path.startswith(prefix) and (folder or "/" not in path)]
        try:
            components.append(_module(folder, kind, inside, known, policy))
        except NotKnownError as more:
            documents += more.documents
            headers += more.headers
        left_out += [path for path in inside if is_unsafe(path)]
    if documents or headers:
        raise NotKnownError(tuple(documents), tuple(headers))
    return FilePlan("sentence-transformers", _merged(components), tuple(left_out))


def modules_of(found: Any) -> list[tuple[str, str]]:
    """Folder and class of each module."""
    if not isinstance(found, list) or not found or len(found) > MAX_MODULES:
        raise PlanError(f"{MODULES} is not a list of 1 to {MAX_MODULES} modules")
    modules = []
    for entry in found:
        path, kind = (entry.get("path"), entry.get("type")) if isinstance(entry, dict) else (None, None)
        if not isinstance(path, str) or not isinstance(kind, str) or path.startswith("/") or ".." in path.split("/"):
            raise PlanError(f"{MODULES} has the entry {str(entry)[:120]}; expected a module with `path` and `type`")
        modules.append((path.strip("/"), kind.rpartition(".")[2]))
    return modules


def _module(folder: str, kind: str, inside: Sequence[str], known: Knowledge, policy: SelectionPolicy) -> Component:
    has_weights = any(path.endswith(".safetensors") or is_unsafe(path) for path in inside)
    if not folder or kind in ("Transformer", "MLMTransformer", "CLIPModel"):
        tokenizer = tokenizer_part(folder, "" if folder else tokenizer_class(inside, known), inside).files
        own = own_files(folder, inside, (*_TRANSFORMER, *PROCESSOR_FILES, "config.json"))
        model = model_part(folder, inside, known, policy, configs=()) if has_weights else Component(folder, ())
        return Component(folder, tuple(dict.fromkeys((*own, *tokenizer, *model.files))), model.precision)
    small = tuple(path for path in inside if path.endswith(SUPPORT_SUFFIXES) and not is_index(path))
    if not has_weights:
        return Component(folder, small)
    model = model_part(folder, inside, known, policy, configs=(), any_precision=True)
    return Component(folder, tuple(dict.fromkeys((*small, *model.files))), model.precision)


def _merged(components: Sequence[Component]) -> tuple[Component, ...]:
    parts: dict[str, Component] = {}
    for part in components:
        before = parts.get(part.name, Component(part.name, ()))
        parts[part.name] = Component(part.name, tuple(dict.fromkeys(before.files + part.files)), part.precision or before.precision)
    return tuple(parts.values())
