"""Submodules of the old library that a project imports, as an addition to the library's stand-in.

`from runpod.serverless.utils import rp_upload` then works, and what is called from it says that it was not converted.
"""

import ast
from pathlib import Path

from gen_worker.project.taking_over.syntax import modules_in

_PLACEHOLDER = '''

class _Submodule:
    """Can be imported, named in annotations and derived from. A call says that it was not converted."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __call__(self, *arguments: Any, **settings: Any) -> Any:
        raise NotImplementedError(f"{self._name} was not converted")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Submodule(f"{self._name}.{name}")

    def __mro_entries__(self, bases: Any) -> tuple[type, ...]:
        return ()


__path__: list[str] = []
for _name in (NAMES):
    _first, _, _rest = _name.partition(".")
    _found: Any = globals().get(_first) or globals().setdefault(_first, _Submodule(f"{__name__}.{_first}"))
    sys.modules[f"{__name__}.{_first}"] = _found
    for _part in filter(None, _rest.split(".")):
        _first = f"{_first}.{_part}"
        _child = getattr(_found, _part, None) or _Submodule(f"{__name__}.{_first}")
        setattr(_found, _part, _child)
        sys.modules[f"{__name__}.{_first}"] = _found = _child
'''


def with_submodules(library: str, stand_in: str, theirs: Path) -> tuple[str, list[str]]:
    """The stand-in's text with the submodules that the project imports, and their names."""
    found = set()
    for _, module in modules_in(theirs):
        for node in ast.walk(module):
            if isinstance(node, ast.Import):
                found |= {each.name for each in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module)
    names = sorted(name.removeprefix(f"{library}.") for name in found if name.startswith(f"{library}."))
    if not names:
        return stand_in, []
    text = stand_in.replace("from typing import Any\n", "import sys\nfrom typing import Any\n", 1)
    return text + _PLACEHOLDER.replace("(NAMES)", f"({', '.join(map(repr, names))},)"), [f"{library}.{name}" for name in names]
