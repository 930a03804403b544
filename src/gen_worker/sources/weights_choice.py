"""Chooses a folder's weights: one complete set, in an allowed precision, under the name that the library looks for. Pure."""

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from gen_worker.sources.plan_types import Knowledge, NotKnownError, PlanError, SelectionPolicy
from gen_worker.sources.weight_files import MODEL_STEMS, WeightSet, by_name, is_index, is_unsafe, weight_sets

_QUANTISED = ("int8", "int4", "fp8")


def choose_weights(
    folder: str,
    paths: Sequence[str],
    known: Knowledge,
    policy: SelectionPolicy,
    *,
    stems: Sequence[str] = MODEL_STEMS,
    any_precision: bool = False,
) -> tuple[tuple[str, ...], str | None]:
    """The files of the chosen set with its index, and its precision. When there is none, `PlanError` says what would
    change that.

    Libraries look for names that begin with one of `stems`. Other names count only when no set has such a name.
    `any_precision`: the allowed ones first, then any other.
    """
    sets = by_name(_sets(folder, paths, known, policy), stems)
    unread = [found.files[0] for found in sets if found.files[0] not in known.precisions]
    if unread:
        raise NotKnownError(headers=tuple(unread))
    usable = []
    for found in sets:
        precision = known.precision(found.files[0]) or found.marked
        allowed = policy.precisions if not any_precision else (*policy.precisions, precision or "")
        if precision is None or precision in allowed:
            rank = allowed.index(precision) if precision else len(allowed)
            usable.append((rank, found.marked is not None, found.size_bytes, found.name, found, precision))
    if not usable:
        usable = [
            (0, False, found.size_bytes, found.name, found, known.precision(found.files[0]))
            for found in sets
            if known.precision(found.files[0]) in _QUANTISED and _is_published_quantised(folder, paths, known)
        ]
    if not usable:
        raise _wrong_precision(folder, sorted({known.precision(found.files[0]) or found.marked or "unknown" for found in sets}), policy)
    *_, best, precision = min(usable, key=lambda item: item[:4])
    return ((best.index,) if best.index else ()) + best.files, precision


def _sets(folder: str, paths: Sequence[str], known: Knowledge, policy: SelectionPolicy) -> list[WeightSet]:
    indexes = [path for path in paths if is_index(path) and PurePosixPath(path).parent == PurePosixPath(folder or ".")]
    if unread := [path for path in indexes if path not in known.documents]:
        raise NotKnownError(documents=tuple(unread))
    documents: Mapping[str, Any] = {path: known.documents[path] for path in indexes}
    sets, problems = weight_sets(paths, known.sizes, documents, folder)
    if not sets:
        if problems:
            raise PlanError(f"{_where(folder)}: {problems[0]}")
        raise no_weights(folder, paths, policy)
    return sets


def _is_published_quantised(folder: str, paths: Sequence[str], known: Knowledge) -> bool:
    """Whether the configuration says that the weights are quantised. They are smaller than half precision, and there are no others."""
    path = f"{folder}/config.json" if folder else "config.json"
    if path not in paths:
        return False
    config = known.object(path)
    return isinstance(config.get("quantization_config"), dict) or isinstance(config.get("quantization"), dict)


def no_weights(folder: str, paths: Sequence[str], policy: SelectionPolicy) -> PlanError:
    """The error that there are no safetensors, with what the folder has instead."""
    unsafe = [path for path in paths if is_unsafe(path)]
    beside = (
        f" (it has {PurePosixPath(unsafe[0]).name}, a pickle or other format that can run code when loaded: never taken)" if unsafe else ""
    )
    return PlanError(
        f"missing required reduced-precision safetensors: {_where(folder)} has no .safetensors weights{beside}. "
        f"Use a revision with safetensors in {' or '.join(policy.precisions)}; COZY_HF_FULL_REPO_DOWNLOAD=1 downloads everything unchecked."
    )


def _wrong_precision(folder: str, have: Sequence[str], policy: SelectionPolicy) -> PlanError:
    return PlanError(
        f"missing required reduced-precision safetensors: {_where(folder)} comes in {', '.join(have)}, "
        f"allowed are {', '.join(policy.precisions)}. "
        f'Allow it with dtypes = ["{have[0]}"] in cozy.toml, or COZY_HF_WEIGHT_PRECISIONS={",".join((*policy.precisions, have[0]))}.'
    )


def _where(folder: str) -> str:
    return f"component {folder!r}" if folder else "the repository"
