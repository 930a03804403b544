"""Which files of a repository a model needs: one set of weights a component, in an allowed precision, and what belongs to it. Pure.

Planning asks for more as it goes: a plan that needs the content of an index, or the precision in a weight file's header, says so in
`Needs`.
"""

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import msgspec

from gen_worker.sources.weight_files import WeightSet, is_index, is_unsafe, weight_sets

KNOWN_FOLDERS = ("transformer", "unet", "vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "scheduler")
OPTIONAL_COMPONENTS = frozenset({"safety_checker", "feature_extractor"})
TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "tokenizer.model", "spiece.model")
SUPPORT_SUFFIXES = (".json", ".txt", ".model", ".jinja", ".tiktoken", ".spm", ".bpe", ".vocab", ".yaml", ".yml")
MAX_SUPPORT_BYTES = 64 << 20
MAX_MODEL_BYTES = 30_000_000_000
_SKIPPED_FOLDERS = ("onnx", "openvino", "coreml", "flax", "tf", "original", ".git", "runs")


class PlanError(ValueError):
    """The repository has no set of files that may be used; the message says which setting would change that."""


class SelectionPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """What may be taken, as COZY_HF_* and the model's `dtypes` say. `precisions` in order of preference."""

    precisions: tuple[str, ...] = ("fp16", "bf16")
    components: tuple[str, ...] = ()
    optional_components: bool = False
    root_json: bool = False
    full_repo: bool = False
    max_bytes: int = MAX_MODEL_BYTES


class Knowledge(msgspec.Struct, frozen=True):
    """What is known of a repository: `documents` are parsed JSON files by path, `precisions` of weight files by path (None: unknown)."""

    sizes: Mapping[str, int]
    documents: Mapping[str, Any] = {}
    precisions: Mapping[str, str | None] = {}


class Needs(msgspec.Struct, frozen=True):
    """What planning has to know before it can decide."""

    documents: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()


class Component(msgspec.Struct, frozen=True):
    """A part of the model: its files, and the precision of its weights (None where it has none)."""

    name: str
    files: tuple[str, ...]
    precision: str | None = None


class FilePlan(msgspec.Struct, frozen=True):
    """The files to have. `kind` says what the repository is; `left_out` names unsafe weights that lie beside those taken."""

    kind: str
    components: tuple[Component, ...]
    left_out: tuple[str, ...] = ()

    @property
    def files(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(path for component in self.components for path in component.files))


def plan_files(known: Knowledge, policy: SelectionPolicy) -> FilePlan | Needs:
    """The files of a model, or what must be known first. `PlanError` when nothing fits."""
    paths = sorted(known.sizes)
    if policy.full_repo:
        return FilePlan("everything", (Component("", tuple(p for p in paths if not p.startswith(".git"))),))
    plan = _by_kind(paths, known, policy)
    if isinstance(plan, FilePlan):
        total = sum(known.sizes[path] for path in plan.files)
        if total > policy.max_bytes:
            raise PlanError(
                f"excessively large: {total / 1e9:.1f} GB in {len(plan.files)} files, more than {policy.max_bytes / 1e9:.0f} GB; "
                "raise COZY_HF_MAX_GB if that is what you want"
            )
    return plan


def _by_kind(paths: Sequence[str], known: Knowledge, policy: SelectionPolicy) -> FilePlan | Needs:
    if "model_index.json" in known.sizes:
        if "model_index.json" not in known.documents:
            return Needs(documents=("model_index.json",))
        return _diffusers(paths, known, policy, known.documents["model_index.json"])
    folders = {path.partition("/")[0] for path in paths if "/" in path}
    if folders & {"transformer", "unet"}:
        return _diffusers(paths, known, policy, {name: None for name in KNOWN_FOLDERS if name in folders})
    here = [path for path in paths if "/" not in path]
    if any(path.endswith(".safetensors") for path in here):
        return _one_folder("transformers" if "config.json" in known.sizes else "single_file", paths, known, policy)
    if found := [path for path in paths if path.endswith(".gguf")]:
        return _variants("gguf", found, paths, known, policy)
    if found := [path for path in paths if path.endswith(".onnx")]:
        return _variants("onnx", found, paths, known, policy)
    if unsafe := [path for path in here if is_unsafe(path)]:
        raise _no_weights("the repository", unsafe, policy)
    support = _support(paths, known)
    if not support:
        raise PlanError(
            "nothing that a model is made of: no model_index.json, no safetensors, no gguf, no onnx; COZY_HF_FULL_REPO_DOWNLOAD=1 takes all"
        )
    return FilePlan("files", (Component("", support),))


# diffusers


def _diffusers(paths: Sequence[str], known: Knowledge, policy: SelectionPolicy, index: Any) -> FilePlan | Needs:
    if not isinstance(index, dict):
        raise PlanError("model_index.json is no JSON object")
    folders = {path.partition("/")[0] for path in paths if "/" in path}
    names = list(policy.components) or [
        name
        for name, value in index.items()
        if not name.startswith("_") and value != [None, None] and (policy.optional_components or name not in OPTIONAL_COMPONENTS)
    ]
    if policy.components and (unknown := [name for name in names if name not in folders]):
        raise PlanError(
            f"COZY_HF_COMPONENTS names {unknown[0]!r}, which the repository lacks; it has {', '.join(sorted(folders)) or 'no folders'}"
        )
    names = [name for name in names if name in folders]
    if not names:
        raise PlanError("model_index.json names no component that the repository has")
    root = [path for path in paths if "/" not in path and (path == "model_index.json" or (policy.root_json and path.endswith(".json")))]
    components, left_out = [Component("", tuple(root))], []
    documents: list[str] = []
    headers: list[str] = []
    for name in names:
        found = _component(name, _class_of(index.get(name)), paths, known, policy)
        if isinstance(found, Needs):
            documents += found.documents
            headers += found.headers
            continue
        components.append(found)
        left_out += [path for path in paths if path.startswith(f"{name}/") and is_unsafe(path)]
    if documents or headers:
        return Needs(tuple(documents), tuple(headers))
    return FilePlan("diffusers", tuple(components), tuple(left_out))


def _class_of(value: Any) -> str:
    return value[1] if isinstance(value, list) and len(value) == 2 and isinstance(value[1], str) else ""


def _component(name: str, class_name: str, paths: Sequence[str], known: Knowledge, policy: SelectionPolicy) -> Component | Needs:
    inside = [path for path in paths if path.startswith(f"{name}/") and "openvino" not in path]
    support = tuple(path for path in inside if not _is_weight(path) and not is_unsafe(path) and not is_index(path))
    if "tokenizer" in name or "Tokenizer" in class_name:
        if not any(PurePosixPath(path).name in TOKENIZER_FILES for path in inside):
            raise PlanError(f"{name!r} has none of {', '.join(TOKENIZER_FILES)}")
        return Component(name, support)
    if "scheduler" in name or "Scheduler" in class_name or not any(_is_weight(path) or is_unsafe(path) for path in inside):
        return Component(name, support)
    chosen = _choose(name, inside, known, policy)
    if isinstance(chosen, Needs):
        return chosen
    weights, precision = chosen
    extra = (weights.index,) if weights.index else ()
    return Component(name, (*support, *extra, *weights.files), precision)


def _choose(folder: str, paths: Sequence[str], known: Knowledge, policy: SelectionPolicy) -> tuple[WeightSet, str | None] | Needs:
    """The weights of a folder: the allowed precision that comes first, then the plainest name, then the smallest."""
    where = f"component {folder!r}" if folder else "the repository"
    indexes = [path for path in paths if is_index(path) and PurePosixPath(path).parent == PurePosixPath(folder or ".")]
    if unread := [path for path in indexes if path not in known.documents]:
        return Needs(documents=tuple(unread))
    documents = {path: value for path, value in known.documents.items() if isinstance(value, dict)}
    sets, problems = weight_sets(paths, known.sizes, documents, folder)
    if not sets:
        if problems:
            raise PlanError(f"{where}: {problems[0]}")
        raise _no_weights(where, [path for path in paths if is_unsafe(path)], policy)
    if unread := [found.files[0] for found in sets if found.files[0] not in known.precisions]:
        return Needs(headers=tuple(unread))
    usable = []
    for found in sets:
        precision = known.precisions[found.files[0]] or found.marked
        if precision is None or precision in policy.precisions:
            rank = policy.precisions.index(precision) if precision else len(policy.precisions)
            usable.append((rank, _oddness(found, folder), found.size_bytes, found.name, found, precision))
    if not usable:
        have = sorted({known.precisions[found.files[0]] or found.marked or "unknown" for found in sets})
        raise PlanError(
            f"missing required reduced-precision safetensors: {where} comes in {', '.join(have)}, "
            f"allowed are {', '.join(policy.precisions)}. "
            f'Allow it with dtypes = ["{have[0]}"] in cozy.toml, or COZY_HF_WEIGHT_PRECISIONS={",".join((*policy.precisions, have[0]))}.'
        )
    best = min(usable)
    return best[4], best[5]


def _oddness(found: WeightSet, folder: str) -> int:
    """0 for the name that libraries look for, more for others (`non_ema`, `consolidated`, ...)."""
    stem = PurePosixPath(found.name).name.partition(".")[0]
    usual = {"model", "diffusion_pytorch_model", "adapter_model", "pytorch_lora_weights"}
    return 0 if stem in usual and "non_ema" not in found.name else 1


def _no_weights(where: str, unsafe: Sequence[str], policy: SelectionPolicy) -> PlanError:
    beside = (
        f" (it has {PurePosixPath(unsafe[0]).name}, a pickle or other format that can run code when loaded: never taken)" if unsafe else ""
    )
    return PlanError(
        f"missing required reduced-precision safetensors: {where} has no .safetensors weights{beside}. "
        f"Use a revision with safetensors in {' or '.join(policy.precisions)}; COZY_HF_FULL_REPO_DOWNLOAD=1 downloads everything unchecked."
    )


# Other repositories


def _one_folder(kind: str, paths: Sequence[str], known: Knowledge, policy: SelectionPolicy) -> FilePlan | Needs:
    here = [path for path in paths if "/" not in path]
    chosen = _choose("", here, known, policy)
    if isinstance(chosen, Needs):
        return chosen
    weights, precision = chosen
    extra = (weights.index,) if weights.index else ()
    support = _support(paths, known)
    left_out = tuple(path for path in here if is_unsafe(path))
    return FilePlan(kind, (Component("", (*support, *extra, *weights.files), precision),), left_out)


_GGUF_MARKS = {
    "int4": ("q4_k_m", "q4_k_s", "q4_0", "q4_1", "iq4"),
    "int8": ("q8_0",),
    "fp16": ("f16", "fp16"),
    "bf16": ("bf16",),
    "fp32": ("f32",),
}
_ONNX_MARKS = {"fp16": ("fp16", "float16"), "int8": ("int8", "uint8", "quantized", "q8"), "int4": ("q4", "int4", "bnb4"), "fp32": ("fp32",)}


def _variants(kind: str, found: Sequence[str], paths: Sequence[str], known: Knowledge, policy: SelectionPolicy) -> FilePlan:
    """One of several files that hold the same model: by the marks in their names, in the order of the allowed precisions."""
    marks = _GGUF_MARKS if kind == "gguf" else _ONNX_MARKS
    groups = _joined_shards(found)
    chosen: tuple[str, str | None] | None = None
    for precision in policy.precisions:
        for mark in marks.get(precision, ()):
            named = [name for name in groups if mark in PurePosixPath(name).stem.lower()]
            if named and chosen is None:
                chosen = min(named, key=len), precision
    if chosen is None:
        plain = [name for name in groups if not any(mark in name.lower() for group in marks.values() for mark in group)]
        if len(groups) == 1 or len(plain) == 1:
            chosen = (plain or list(groups))[0], None
        else:
            raise PlanError(
                f"{len(groups)} {kind} files ({', '.join(sorted(groups)[:6])}), none in {' or '.join(policy.precisions)}; "
                f'say which: dtypes = ["int4"] or ["int8"] in cozy.toml'
            )
    files = groups[chosen[0]]
    data = [path for path in paths if any(path.startswith(file) and path != file for file in files)]  # model.onnx_data
    return FilePlan(kind, (Component("", (*_support(paths, known), *files, *data), chosen[1]),))


def _joined_shards(found: Sequence[str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for path in found:
        base, mark, _ = path.rpartition("-of-")
        groups.setdefault(base.rpartition("-")[0] if mark else path, []).append(path)
    return groups


def _support(paths: Sequence[str], known: Knowledge) -> tuple[str, ...]:
    """Configuration and vocabulary: small files of known kinds, never code."""
    return tuple(
        path
        for path in paths
        if path.endswith(SUPPORT_SUFFIXES)
        and not is_index(path)
        and known.sizes[path] <= MAX_SUPPORT_BYTES
        and path.partition("/")[0] not in _SKIPPED_FOLDERS
        and not path.startswith(".")
    )


def _is_weight(path: str) -> bool:
    return path.endswith((".safetensors", ".onnx", ".onnx_data", ".gguf"))
