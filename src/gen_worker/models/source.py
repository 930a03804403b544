"""Where a model's files come from: the seam behind which downloaders are swapped."""

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import msgspec

from gen_worker.errors import FatalError
from gen_worker.names import did_you_mean
from gen_worker.refs import ModelSpec, canonical_ref


class LocalModel(msgspec.Struct, frozen=True):
    """A model on this disk. `model_id` is its canonical ref, whatever folder serves it."""

    model_id: str
    path: Path


class ModelSource(Protocol):
    """Turns a declared model into a folder or file on this disk."""

    async def locate(self, key: str, spec: ModelSpec) -> LocalModel:
        """Find or fetch the files; `FatalError` or `RetryableError` says why not."""
        ...


class OverrideError(ValueError):
    """A model override cannot be used."""


class OverrideSource:
    """Local folders in place of refs, by key: for development and tests.

    A value is a path, or `pkg:package/sub/path` for files that an installed Python package ships.
    """

    def __init__(self, paths: Mapping[str, Path]) -> None:
        self._paths = paths

    async def locate(self, key: str, spec: ModelSpec) -> LocalModel:
        path = self._paths.get(key)
        if path is None:
            raise FatalError(
                f"model {key!r} ({spec.ref}) is not on this machine, and this version cannot download models yet. "
                f"Map it to a local folder: --model {key}=FOLDER, or COZY_MODEL_OVERRIDES={key}=FOLDER.{did_you_mean(key, self._paths)}"
            )
        return LocalModel(canonical_ref(spec.ref), path)


def parse_overrides(texts: list[str], base: Path) -> dict[str, Path]:
    """`key=path` pairs to paths, relative ones under `base`; `OverrideError` names the pair that cannot be used."""
    found: dict[str, Path] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key.strip() or not value.strip():
            raise OverrideError(f"model override {text!r}: expected KEY=FOLDER, such as sd15=./models/sd15")
        path = _package_path(text, value[4:]) if value.startswith("pkg:") else (base / Path(value).expanduser()).resolve()
        if not path.exists():
            raise OverrideError(f"model override {text!r}: there is nothing at {path}")
        found[key.strip()] = path
    return found


def _package_path(text: str, location: str) -> Path:
    package, _, rest = location.partition("/")
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise OverrideError(f"model override {text!r}: the package {package!r} is not installed; add it with: pip install {package}")
    return Path(next(iter(spec.submodule_search_locations))) / rest
