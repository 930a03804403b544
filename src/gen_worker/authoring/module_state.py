"""What a torch module is made of, looked at before and after somebody else's code had it.

Libraries change modules in ways that no list of names foresees: they swap layers, parameters, classes, configurations and hooks. Two
looks tell whether anything was changed, whatever it was.

The second look is taken at each reload of a model, of thousands of modules with dozens of attributes each. So it makes no objects and runs
no Python code of its own for each of them: what the first look found lies in a few flat lists, which are compared from beginning to end.
"""

from collections.abc import Iterator, Sequence
from itertools import chain
from operator import eq, is_
from typing import Any

_SIZED = frozenset({"dict", "OrderedDict", "list", "set"})


class ModuleState:
    """The parts of a module at one moment, compared by identity. It keeps them, so that no new object can have an old one's identity.

    Without `tensors` it does not matter which tensors the parameters and buffers are, only which names they have.
    """

    def __init__(self, module: Any, *, tensors: bool = True) -> None:
        self._parts = parts_of(module)
        self._kinds = list(map(type, self._parts))
        self._attributes: list[dict[str, Any]] = list(map(vars, self._parts))
        # The attributes hold these three, so that they are known to be the same ones.
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
        """Whether nothing was added, taken away or exchanged anywhere in the module."""
        return (
            all(map(is_, map(type, self._parts), self._kinds))
            and all(map(is_, map(vars, self._parts), self._attributes))
            and list(map(len, self._named)) == self._lengths  # first: from here on each name and value has its counterpart
            and all(map(eq, chain.from_iterable(self._named), self._names))
            and all(map(is_, _values_of(self._compared), self._values))
            and list(map(len, self._sized)) == self._sizes
        )


def parts_of(module: Any) -> list[Any]:
    """A module and all within it, each once, as `module.modules()` says; that one takes seven times as long."""
    found, to_see = {id(module): module}, [module]
    while to_see:
        for child in to_see.pop()._modules.values():
            if child is not None and id(child) not in found:
                found[id(child)] = child
                to_see.append(child)
    return list(found.values())


def _values_of(dicts: Sequence[dict[str, Any]]) -> Iterator[Any]:
    return chain.from_iterable(map(dict.values, dicts))
