"""Which classes load a model. That decides which files of its repository are fetched."""

from collections.abc import Iterable
from typing import Any, get_origin

from gen_worker.authoring.signature import FunctionSpec
from gen_worker.project.injectable import own_loaders
from gen_worker.sources.file_plan import SMALL_FILES
from gen_worker.sources.keyspace import Keyspace


def takers_of(keyspace: Keyspace, functions: Iterable[FunctionSpec], key: str) -> tuple[str, ...]:
    """Full names of the classes that these functions load the model of a key as, sorted, so that equal answers compare
    equal. For `SelectionPolicy.takers`.
    """
    names: set[str] = set()
    for function, injection in keyspace.takers(functions, key):
        names.add(_name_of(injection.type))
        if any(kind == injection.type for kind in own_loaders(function.function)):
            names.add(SMALL_FILES)  # an author's own loader may read small files beside the weights
    return tuple(sorted(names))


def _name_of(annotation: Any) -> str:
    kind = get_origin(annotation) or annotation
    return f"{kind.__module__}.{kind.__qualname__}" if isinstance(kind, type) else ""
