"""Stand-ins for an author's declared packages that are not installed here, so that a module that only names their types
can still be discovered. A module that really uses one during its import gets an error with its line.
"""

import importlib.abc
import importlib.machinery
import importlib.util
import re
import sys
import tomllib
import types
from collections.abc import Iterable, Iterator, MutableSequence, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

# Distributions whose import name differs from their own name with "-" replaced by "_".
_IMPORT_NAMES = {
    "opencv-python": "cv2",
    "opencv-python-headless": "cv2",
    "pillow": "PIL",
    "pyyaml": "yaml",
    "scikit-image": "skimage",
    "scikit-learn": "sklearn",
}
TORCH_EXTRA = ("torch", "torchvision", "torchaudio", "safetensors")
# These only wrap a function when it is defined: `@torch.inference_mode()`.
_WRAPPERS = {"inference_mode", "no_grad", "autocast", "compile", "enable_grad"}


class StandInUsedError(ImportError):
    """An import-time use of a package that is not installed."""


class _StandInType(type):
    """A name from a missing package: allowed in annotations and as a base class; calling it is an error."""

    __module__: str

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _make(f"{cls.__module__}.{cls.__qualname__}", name)

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        if not cls.__dict__.get("_stand_in"):
            return super().__call__(*args, **kwargs)
        if cls.__name__ in _WRAPPERS:
            return args[0] if len(args) == 1 and callable(args[0]) else lambda function: function
        package = cls.__module__.partition(".")[0]
        raise StandInUsedError(
            f"{_caller()}: calls {cls.__module__}.{cls.__qualname__}(...) while the module is imported, but '{package}' is not "
            f"installed here. Install it (pip install {package}), or move the call into the function that needs it."
        )

    def __getitem__(cls, item: Any) -> Any:
        return cls

    def __or__(cls, other: Any) -> Any:
        return cls

    __ror__ = __or__


def is_stand_in(kind: type) -> bool:
    """Whether a class is the stand-in for one whose package is not installed here."""
    return "_stand_in" in kind.__dict__


def _make(module: str, name: str) -> _StandInType:
    return _StandInType(name, (), {"__module__": module, "_stand_in": True})


class _StandInModule(types.ModuleType):
    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__path__: MutableSequence[str] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        made = _make(self.__name__, name)
        setattr(self, name, made)
        return made


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def __init__(self, packages: Iterable[str]) -> None:
        self.packages = frozenset(packages)
        self.used: set[str] = set()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        package = fullname.partition(".")[0]
        if package not in self.packages:
            return None
        self.used.add(package)
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        return _StandInModule(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        return None


def missing_packages(root: Path) -> tuple[str, ...]:
    """Import names of the packages declared in `<root>/pyproject.toml` that are not installed."""
    names: set[str] = set()
    for distribution, extras in _declared(root):
        if distribution == "gen-worker":
            names.update(TORCH_EXTRA if "torch" in extras else ())
        else:
            names.add(_IMPORT_NAMES.get(distribution, distribution.replace("-", "_")))
    return tuple(sorted(name for name in names if name.isidentifier() and not _installed(name)))


def declared_for(root: Path, package: str) -> str | None:
    """The distribution declared in `<root>/pyproject.toml` that has the import name `package`, or seems to: `piper-tts` for `piper`."""
    for distribution, _ in _declared(root):
        name = _IMPORT_NAMES.get(distribution, distribution.replace("-", "_"))
        if name == package or package.lower() in distribution.split("-"):
            return distribution
    return None


def _declared(root: Path) -> list[tuple[str, str]]:
    """The distributions that a project declares, each with its extras: `("gen-worker", "[torch]")`."""
    try:
        project = tomllib.loads((root / "pyproject.toml").read_text()).get("project", {})
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError):
        return []
    wanted = [*project.get("dependencies", ()), *chain.from_iterable(project.get("optional-dependencies", {}).values())]
    matches = [re.match(r"\s*([A-Za-z0-9._-]+)\s*(\[[^\]]*\])?", str(each)) for each in wanted]
    return [(found[1].lower().replace("_", "-").replace(".", "-"), found[2] or "") for found in matches if found is not None]


@contextmanager
def stand_ins(packages: Iterable[str]) -> Iterator[set[str]]:
    """Inside this block, importing these packages returns stand-ins; yields the set of packages that were imported."""
    finder = _Finder(packages)
    sys.meta_path.append(finder)
    try:
        yield finder.used
    finally:
        sys.meta_path.remove(finder)
        for name in [name for name, module in sys.modules.items() if isinstance(module, _StandInModule)]:
            del sys.modules[name]


def _installed(name: str) -> bool:
    try:
        return name in sys.modules or importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def _caller() -> str:
    frame = sys._getframe(2)
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"
