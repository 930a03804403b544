"""Imports the libraries that an endpoint's models need before the first run asks for them, while the models are still
downloading.

torch, diffusers and transformers take seconds to import. One thread imports them one after the other. Then it prepares
the devices for their first load, and builds the modules of models that are on disk, without their weights. Nothing
waits for this thread: a run that comes earlier imports what it needs, as it would without it.

The thread must not slow down runs or the exit. It starts when the worker is registered, yields the interpreter's lock
while functions run, and stops between two modules once the program ends. It is not a daemon thread, because Python must
not shut down while a library is being imported.
"""

import contextlib
import importlib
import importlib.abc
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from gen_worker.authoring.adapters import LoraAdapter
from gen_worker.authoring.signature import FunctionSpec
from gen_worker.errors import MissingExtraError
from gen_worker.interpreter import settle_what_was_imported
from gen_worker.log import Log
from gen_worker.project.injectable import own_loaders
from gen_worker.residency.devices import DeviceSet
from gen_worker.residency.loaders.base import family
from gen_worker.residency.loaders.diffusers import class_of, is_component
from gen_worker.sources.gather import read_object
from gen_worker.sources.source import LocalModel
from gen_worker.texts import repr_of

GIVEN_UP_S = 0.002  # pause between two modules while functions run
MOST_GIVEN_UP_S = 1.0  # the most it pauses in all, because one of those functions may be waiting for this import

# The modules to import, by the package whose classes are loaded. The first is the library itself: without it the rest is skipped.
_TORCH = ("torch", "safetensors.torch")
_NEEDS = {
    "diffusers": (*_TORCH, "transformers.modeling_utils", "diffusers.pipelines.pipeline_utils"),
    "transformers": (*_TORCH, "transformers.modeling_utils"),
    "onnxruntime": ("onnxruntime",),
}


class ImportsAhead:
    """One for each process. Safe from any thread. After `close` the current import still finishes, and nothing follows it."""

    def __init__(self, devices: DeviceSet, log: Log, working: Callable[[], int]) -> None:
        """`working` returns how many functions run now."""
        self._devices = devices
        self._log = log
        self._working = working
        self._lock = threading.Lock()
        self._steps: deque[Callable[[], None]] = deque()
        self._thread: threading.Thread | None = None
        self._known: set[object] = set()
        self._begun = False
        self._closed = False

    def begin(self, functions: Iterable[FunctionSpec]) -> None:
        """Start importing what the models of these functions need. Does nothing when they use no models."""
        modules = needed_by(functions)
        with self._lock:
            self._begun = True
            if modules and modules not in self._known:
                self._known.add(modules)
                self._steps.appendleft(lambda: self._import(modules))
            self._start()

    def arrived(self, local: LocalModel, takers: Sequence[str], build: Callable[[], int] = lambda: 0) -> None:
        """A model's files are on disk: import the classes that they name, then call `build`, which returns how many
        parts it built. `takers`: full names of the classes that the model is loaded as.
        """
        if not any(name.partition(".")[0] in ("diffusers", "transformers") for name in takers):
            return
        with self._lock:
            if local.path not in self._known:
                self._known.add(local.path)
                self._steps.append(lambda: self._make_ready(local, build))
            self._start()

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._steps.clear()

    def _start(self) -> None:
        """Start the thread. Call with the lock held."""
        if self._begun and self._steps and self._thread is None and not self._closed:
            self._thread = threading.Thread(target=self._work, name="imports-ahead", daemon=False)
            with contextlib.suppress(RuntimeError):  # no thread can be started: the first run imports instead
                self._thread.start()

    def _work(self) -> None:
        gate = _Gate(threading.get_ident(), self._working)
        sys.meta_path.insert(0, gate)
        try:
            while True:
                with self._lock:
                    if not self._steps:
                        self._thread = None
                        return
                    step = self._steps.popleft()
                step()
        except SystemExit:  # the program ends, or a library calls exit: the run that needs the library will report it
            return
        finally:
            sys.meta_path.remove(gate)

    def _import(self, modules: Sequence[str]) -> None:
        """Import these modules, and prepare the devices if torch is among them."""
        began_s = time.perf_counter()
        done = [name for name in modules if name not in sys.modules and not self._closed and self._try(name)]
        imported_s = time.perf_counter() - began_s
        names = list(dict.fromkeys(name.partition(".")[0] for name in done))
        if names:
            settle_what_was_imported()
            text = f"imported {', '.join(names)} ahead of the first run in {imported_s:.2f} s"
            self._log.note(text, "imports.ahead", modules=names, seconds=round(imported_s, 3))
        if "torch" in modules and "torch" in sys.modules and not self._closed:
            self._prepare_devices()

    def _import_classes(self, local: LocalModel) -> None:
        before, began_s = len(sys.modules), time.perf_counter()
        try:
            for library, name in classes_named_in(local.path):
                with contextlib.suppress(AttributeError):  # this version of the library lacks the class
                    class_of(library, name)
        except Exception as exc:  # noqa: BLE001 - of a library's or a model's: the run that needs it will say it
            self._log.info("imports.ahead_failed", model=local.model_id, error=repr_of(exc))
        if len(sys.modules) > before:
            settle_what_was_imported()
            seconds = round(time.perf_counter() - began_s, 3)
            text = f"imported the classes of {local.model_id} ahead of its first run in {seconds:.2f} s"
            self._log.note(text, "imports.ahead", model=local.model_id, modules=len(sys.modules) - before, seconds=seconds)

    def _make_ready(self, local: LocalModel, build: Callable[[], int]) -> None:
        self._import_classes(local)
        began_s = time.perf_counter()
        try:
            parts = build()
        except MissingExtraError:
            return  # a missing package is reported by the run that needs it, with the command that installs it
        except Exception as exc:  # noqa: BLE001 - of a model's or a library's: its first load will say it
            self._log.info("models.ahead_failed", model=local.model_id, error=repr_of(exc))
            return
        if parts:
            seconds = round(time.perf_counter() - began_s, 3)
            text = f"built {local.model_id} without its weights ahead of its first load in {seconds:.2f} s"
            self._log.note(text, "models.built_ahead", model=local.model_id, parts=parts, seconds=seconds)

    def _try(self, name: str) -> bool:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError:
            return False  # a missing package is reported by the run that needs it, with the command that installs it
        except Exception as exc:  # noqa: BLE001 - a broken library; whoever needs it will hear of it
            self._log.info("imports.ahead_failed", module=name, error=repr_of(exc))
            return False
        return True

    def _prepare_devices(self) -> None:
        began_s = time.perf_counter()
        try:
            self._devices.get()
            devices = [self._devices.get(number) for number in range(self._devices.count)]
            prepared = [device.name for device in devices if device.prepare()]
        except Exception as exc:  # noqa: BLE001 - of a driver's: the first load will say it
            self._log.info("imports.ahead_failed", device="", error=repr_of(exc))
            return
        if prepared:
            seconds = time.perf_counter() - began_s
            text = f"made {', '.join(prepared)} ready in {seconds:.2f} s"
            self._log.note(text, "devices.prepared", devices=prepared, seconds=round(seconds, 3))


class _Gate(importlib.abc.MetaPathFinder):
    """A finder on `sys.meta_path` that runs before each module that one thread imports. It never finds a module itself."""

    def __init__(self, thread: int, working: Callable[[], int]) -> None:
        self._thread = thread
        self._working = working
        self._given_up_s = 0.0

    def find_spec(self, fullname: str, path: Any, target: ModuleType | None = None) -> ModuleSpec | None:
        if threading.get_ident() != self._thread:
            return None
        if not threading.main_thread().is_alive():
            raise SystemExit
        if self._given_up_s < MOST_GIVEN_UP_S and self._working():
            self._given_up_s += GIVEN_UP_S
            time.sleep(GIVEN_UP_S)
        return None


def needed_by(functions: Iterable[FunctionSpec]) -> tuple[str, ...]:
    """The modules needed to load the models of these functions, in the order to import them."""
    found: dict[str, None] = {}
    for function in functions:
        own = own_loaders(function.function) if function.injections else {}
        for injection in function.injections:
            if injection.type is LoraAdapter:
                found.update(dict.fromkeys((*_TORCH, "peft")))
            elif not any(kind == injection.type for kind in own):  # only the author's own loader knows what it imports
                found.update(dict.fromkeys(_NEEDS.get(family(injection.type), ())))
    return tuple(found)


def classes_named_in(path: Path) -> list[tuple[str, str]]:
    """Library and class of each part named by a model's folder."""
    if (path / "model_index.json").is_file():
        parts = read_object(path / "model_index.json").items()
        return [(value[0], value[1]) for name, value in parts if is_component(name, value)]
    found: list[Any] = []
    if (path / "config.json").is_file():
        config = read_object(path / "config.json")
        if "_class_name" in config:
            return [("diffusers", str(config["_class_name"]))]
        found += config.get("architectures") or ()
    if (path / "tokenizer_config.json").is_file():
        found.append(read_object(path / "tokenizer_config.json").get("tokenizer_class"))
    return [("transformers", name) for name in found if isinstance(name, str)]
