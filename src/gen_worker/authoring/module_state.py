"""Records what a torch module consists of, to detect changes made by other code.

Libraries change modules in ways that no list of names can foresee: they replace layers, parameters, classes,
configurations and hooks. Comparing two records shows whether anything was changed.

The comparison happens at each reload of a model, for thousands of modules with dozens of attributes each. So it creates
no objects and runs no Python code for each of them: the first record keeps everything in a few flat lists, which are
compared from beginning to end.
"""

from collections.abc import Iterator, Sequence
from itertools import chain
from operator import eq, is_
from typing import Any

_SIZED = frozenset({"dict", "OrderedDict", "list", "set"})


class ModuleState:
    """The parts of a module at one moment, compared by identity. It keeps references to them, so that no new object can
    get an old one's identity.

    Without `tensors` only the names of the parameters and buffers are compared, not the tensors themselves.
    """

    def __init__(self, module: Any, *, tensors: bool = True) -> None:
        self._parts = parts_of(module)
        self._kinds = list(map(type, self._parts))
        self._attributes: list[dict[str, Any]] = list(map(vars, self._parts))
        # These three are attributes, so their identity is already compared there.
        children = [held["_modules"] for held in self._attributes]
        held_tensors = [held[name] for held in self._attributes for name in ("_parameters", "_buffers")]
        self._named: Sequence[dict[str, Any]] = [*self._attributes, *children, *held_tensors]
        self._compared: Sequence[dict[str, Any]] = self._named if tensors else [*self._attributes, *children]
        self._lengths = list(map(len, self._named))
        self._names = list(chain.from_iterable(self._named))
        self._values = list(_values_of(self._compared))
        # Hooks and configurations are changed in place.
        self._sized = [value for value in _values_of(self._attributes) if type(value).__name__ in _SIZED]
        self._sizes = list(map(len, self._sized))

    def is_as_before(self) -> bool:
        """Whether nothing was added, removed or replaced anywhere in the module."""
        return (
            all(map(is_, map(type, self._parts), self._kinds))
            and all(map(is_, map(vars, self._parts), self._attributes))
            and list(map(len, self._named)) == self._lengths  # first, so that from here on each name and value has a counterpart
            and all(map(eq, chain.from_iterable(self._named), self._names))
            and all(map(is_, _values_of(self._compared), self._values))
            and list(map(len, self._sized)) == self._sizes
        )


def parts_of(module: Any) -> list[Any]:
    """A module and everything within it, each once, like `module.modules()`, which takes seven times as long."""
    found, to_see = {id(module): module}, [module]
    while to_see:
        for child in to_see.pop()._modules.values():
            if child is not None and id(child) not in found:
                found[id(child)] = child
                to_see.append(child)
    return list(found.values())


def _values_of(dicts: Sequence[dict[str, Any]]) -> Iterator[Any]:
    return chain.from_iterable(map(dict.values, dicts))
