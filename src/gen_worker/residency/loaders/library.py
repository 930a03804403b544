"""The libraries' own loading, for models that the fast path does not understand.

The libraries give random or default values to tensors missing from the files, and only log it. Here that is an error,
except for tensors that the library itself excuses: tied weights, `_keys_to_ignore_on_load_missing`, buffers that are
never saved.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from gen_worker.authoring.building import BUILDING
from gen_worker.errors import FatalError
from gen_worker.residency.loaders.pieces import promised_but_absent

SHOWN = 5


def load_by_library(kind: Any, path: Path, options: Mapping[str, Any], why: str = "") -> Any:
    """A module from `kind.from_pretrained(path)`; `FatalError` names the tensors missing from the files.

    `why`: what the fast path did not understand, for the message when the library fails, too.
    """
    try:
        with BUILDING:
            model, info = kind.from_pretrained(str(path), local_files_only=True, output_loading_info=True, **options)
    except (RuntimeError, ValueError) as exc:
        if not why or type(exc) not in (RuntimeError, ValueError):  # torch's subclass of RuntimeError means out of memory
            raise
        raise FatalError(f"the files of {path.name} do not fit {kind.__name__}: {why}. The library says: {exc}") from exc
    missing = {*info["missing_keys"], *_unfilled(model, path)}
    if missing := {name for name in missing if not may_be_missing(name)}:
        raise FatalError(lacking(path, type(model), missing))
    return model


def _unfilled(model: Any, folder: Path) -> set[str]:
    """Unfilled tensors that diffusers does not report for sharded files: it trusts the index, whatever the shards hold.

    These are tensors left without memory, and tensors that the index names but no shard holds. transformers checks the
    shards itself.
    """
    if type(model).__module__.partition(".")[0] == "transformers":
        return set()
    state: dict[str, Any] = model.state_dict()
    return {name for name, tensor in state.items() if tensor.is_meta} | (promised_but_absent(folder) & state.keys())


def may_be_missing(name: str) -> bool:
    """Whether torch has its own default for a tensor missing from old files: the batch counter, which is only used in training."""
    return name.endswith("num_batches_tracked")


def lacking(path: Path, kind: type, missing: Iterable[str]) -> str:
    """The message about tensors missing from a folder's files."""
    names = sorted(missing)
    shown = ", ".join(repr(name) for name in names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
    return (
        f"the files of {path.name} lack {shown}; expected every weight of {kind.__name__}, which would run with random numbers otherwise. "
        "Use a complete checkpoint, or a class that has no such part, or load it with a function of your own, marked @model_loader(TYPE)"
    )
