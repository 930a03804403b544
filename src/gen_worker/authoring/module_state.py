"""What a torch module is made of, looked at before and after somebody else's code had it.

Libraries change modules in ways that no list of names foresees: they swap layers, parameters, classes, configurations and hooks. Two
looks tell whether anything was changed, whatever it was.
"""

from collections.abc import Iterator
from operator import is_
from typing import Any

_SIZED = frozenset({"dict", "OrderedDict", "list", "set"})


class ModuleState:
    """The parts of a module at one moment, compared by identity. It keeps them, so that no new object can have an old one's identity.

    Without `tensors` it does not matter which tensors the parameters and buffers are, only which names they have.
    """

    def __init__(self, module: Any, *, tensors: bool = True) -> None:
        self._module = module
        self._tensors = tensors
        self._seen = list(_look(module, tensors))

    def is_as_before(self) -> bool:
        """Whether nothing was added, taken away or exchanged anywhere in the module."""
        now = _look(self._module, self._tensors)
        for before in self._seen:
            found = next(now, None)
            if found is None or len(found) != len(before) or not all(map(is_, found, before)):
                return False
        return next(now, None) is None


def _look(module: Any, tensors: bool) -> Iterator[list[Any]]:
    for part in module.modules():
        held = vars(part)
        found = [part, type(part), *held, *held.values()]
        # Hooks and configurations are changed in place: small numbers are the same object whenever they are equal.
        found += [len(value) for value in held.values() if type(value).__name__ in _SIZED]
        for name in ("_parameters", "_buffers"):
            found += held[name]
            if tensors:
                found += held[name].values()
        yield found
