"""Where a model's files come from: the interface behind which downloaders can be replaced."""

import importlib.util
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import msgspec

from gen_worker.content.listing import Listing
from gen_worker.content.progress import Progress
from gen_worker.errors import DISK_IS_FULL, DiskFullError, FatalError, RetryableError
from gen_worker.names import did_you_mean
from gen_worker.net.retry import HttpError, PassingError, is_passing
from gen_worker.net.wanted import DownloadCanceledError, DownloadFailedError, NoSpaceError
from gen_worker.refs import ModelSpec, canonical_ref
from gen_worker.settings import split_list


class ModelWant(msgspec.Struct, frozen=True):
    """A model that is needed: its key and spec, and its files if a scheduler has already resolved them.

    `takers`: the classes that functions load the model as, for example
    `transformers.models.auto.modeling_auto.AutoModel`. Empty: unknown.
    """

    key: str
    spec: ModelSpec
    listing: Listing | None = None
    takers: tuple[str, ...] = ()

    @property
    def model_id(self) -> str:
        return canonical_ref(self.spec.ref)


class LocalModel(msgspec.Struct, frozen=True):
    """A model on this disk. `model_id` is its canonical ref, whatever folder it is in.

    `digests` of its files by relative path, where known; `version` distinguishes two states of a ref.
    """

    model_id: str
    path: Path
    version: str = ""
    digests: Mapping[str, str] = {}
    fetched_bytes: int = 0
    localized: bool = False  # copied from a network disk


class ModelSource(Protocol):
    """Finds or fetches the files of a declared model. Blocking: called from threads."""

    def present(self, want: ModelWant) -> LocalModel | None:
        """The model if all of it is on this disk; uses no network."""
        ...

    def fetch(self, want: ModelWant, progress: Progress, cancel: threading.Event) -> LocalModel:
        """Fetch the model; raises a `WorkerError` with the reason when that fails."""
        ...


class OverrideError(ValueError):
    """An unusable model override."""


class OverrideSource:
    """Local folders in place of refs, by key: for development and tests.

    A value is a path, or `pkg:package/sub/path` for files shipped by an installed Python package. Other keys are passed
    to `otherwise`.
    """

    def __init__(self, paths: Mapping[str, Path], otherwise: ModelSource | None = None) -> None:
        self.paths = paths
        self._otherwise = otherwise

    def present(self, want: ModelWant) -> LocalModel | None:
        path = self.paths.get(want.key)
        if path is not None:
            return LocalModel(want.model_id, path)
        return self._otherwise.present(want) if self._otherwise else None

    def fetch(self, want: ModelWant, progress: Progress, cancel: threading.Event) -> LocalModel:
        if self._otherwise is not None:
            return self._otherwise.fetch(want, progress, cancel)
        raise FatalError(
            f"model {want.key!r} ({want.spec.ref}) is not on this machine. Map it to a local folder: --model {want.key}=FOLDER, or "
            f"COZY_MODEL_OVERRIDES={want.key}=FOLDER.{did_you_mean(want.key, self.paths)}"
        )


class Downloads:
    """`hf:` and `cozy:` refs: a scheduler's file list first, then the hub, then Hugging Face. Errors are converted for
    callers of runs.
    """

    def __init__(self, by_scheme: Mapping[str, ModelSource], scheme_of: Callable[[str], str]) -> None:
        self._by_scheme = by_scheme
        self._scheme_of = scheme_of

    def present(self, want: ModelWant) -> LocalModel | None:
        with as_run_errors(want.model_id):
            return self._source(want).present(want)

    def fetch(self, want: ModelWant, progress: Progress, cancel: threading.Event) -> LocalModel:
        with as_run_errors(want.model_id):
            return self._source(want).fetch(want, progress, cancel)

    def _source(self, want: ModelWant) -> ModelSource:
        if want.listing is not None:
            return self._by_scheme["listed"]
        return self._by_scheme[self._scheme_of(want.spec.ref)]


@contextmanager
def as_run_errors(name: str) -> Iterator[None]:
    """Convert errors while fetching a model into errors fit to be a run's outcome."""
    try:
        yield
    except DownloadFailedError as exc:
        text = f"{name} could not be downloaded: {exc}"
        raise (RetryableError(text) if exc.passing else FatalError(text)) from exc
    except DownloadCanceledError as exc:
        raise RetryableError(f"the download of {name} was stopped") from exc
    except NoSpaceError as exc:
        raise DiskFullError(f"disk_full: {exc.strerror or exc}; the bytes so far are kept. Make room with: cozyctl models gc") from exc
    except (PassingError, HttpError) as exc:
        raise (RetryableError if is_passing(exc) else FatalError)(f"{name} could not be downloaded: {exc}") from exc
    except OSError as exc:
        text = f"{name} could not be stored: {exc.strerror or exc}"
        raise (DiskFullError(f"disk_full: {text}") if exc.errno in DISK_IS_FULL else FatalError(text)) from exc
    except ValueError as exc:  # from a list or a hub: the caller of the run is not to blame
        raise FatalError(f"{name}: {exc}") from exc


def parse_overrides(texts: Sequence[str], base: Path) -> dict[str, Path]:
    """Parse `key=path` pairs; relative paths are resolved against `base`. `OverrideError` names an unusable pair."""
    found: dict[str, Path] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key.strip() or not value.strip():
            raise OverrideError(f"model override {text!r}: expected KEY=FOLDER, such as sd15=./models/sd15")
        path = _package_path(text, value[4:]) if value.startswith("pkg:") else (base / Path(value).expanduser()).resolve()
        if not path.exists():
            raise OverrideError(f"model override {text!r}: nothing at {path}")
        found[key.strip()] = path
    return found


def read_overrides(named: str, root: Path, options: Sequence[str] = (), keys: Collection[str] | None = None) -> dict[str, Path]:
    """Local folders by model key: those of COZY_MODEL_OVERRIDES (relative to `root`), then those of options (relative
    to the current folder).

    `OverrideError` for an unusable pair, and for a key that is not in `keys` (None: keys are not checked).
    """
    found = parse_overrides(split_list(named), root) | parse_overrides(options, Path.cwd())
    for key in found:
        if keys is not None and key not in keys:
            raise OverrideError(
                f"model override for {key!r}, which is unused.{did_you_mean(key, keys)} Declared: {', '.join(sorted(keys)) or 'none'}"
            )
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
