"""Libraries that the models of an endpoint will need, imported before its first run asks for them, while models are still on their way.

torch, diffusers and transformers take seconds to import. A thread of its own does it, one step after the other; then it has the devices
make ready what their first load passes through, and models that are here build what they need beside their weights. Nobody waits for it:
what comes before it is done waits for the import it needs, as ever.

It is in nobody's way: it begins when the worker is registered, gives the interpreter's lock away while functions run, and ends between two
modules once the program ends. The thread is no daemon for that: Python must not tear itself down under a library that is being imported.
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
from gen_worker.collector import settle_what_was_imported
from gen_worker.errors import MissingExtraError
from gen_worker.log import Log
from gen_worker.project.injectable import own_loaders
from gen_worker.residency.devices import DeviceSet
from gen_worker.residency.loaders.base import family
from gen_worker.residency.loaders.diffusers import class_of, is_component
from gen_worker.sources.gather import read_object
from gen_worker.sources.source import LocalModel
from gen_worker.texts import repr_of

GIVEN_UP_S = 0.002  # between two modules, while functions run
MOST_GIVEN_UP_S = 1.0  # in all: one of those functions may be waiting for what is being imported

# By the package whose loading a type has. The first is the library itself: without it there is nothing to do.
_TORCH = ("torch", "safetensors.torch")
_NEEDS = {
    "diffusers": (*_TORCH, "transformers.modeling_utils", "diffusers.pipelines.pipeline_utils"),
    "transformers": (*_TORCH, "transformers.modeling_utils"),
    "onnxruntime": ("onnxruntime",),
}


class ImportsAhead:
    """One for a process. Safe from any thread; `close` lets what is being imported come to its end, and nothing follows it."""

    def __init__(self, devices: DeviceSet, log: Log, working: Callable[[], int]) -> None:
        """`working`: how many functions run now."""
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
        """Import what the models of these functions need. Does nothing where they take none."""
        modules = needed_by(functions)
        with self._lock:
            self._begun = True
            if modules and modules not in self._known:
                self._known.add(modules)
                self._steps.appendleft(lambda: self._import(modules))
            self._start()

    def arrived(self, local: LocalModel, takers: Sequence[str], build: Callable[[], int] = lambda: 0) -> None:
        """A model's files are here: import the classes that they name, then `build`, which says how many parts it built. `takers`: the
        classes that it is taken as, by their full names."""
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
        """With the lock held."""
        if self._begun and self._steps and self._thread is None and not self._closed:
            self._thread = threading.Thread(target=self._work, name="imports-ahead", daemon=False)
            with contextlib.suppress(RuntimeError):  # no thread is to be had: then the first run imports
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
        except SystemExit:  # the program ends, or a library wants it to: whoever needs that library will hear of it
            return
        finally:
            sys.meta_path.remove(gate)

    def _import(self, modules: Sequence[str]) -> None:
        """Import these, and make the devices ready if torch is among them."""
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
                with contextlib.suppress(AttributeError):  # a class that this version of the library does not have
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
            return  # of what is not installed a run tells better, with the command that installs it
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
            return False  # of what is not installed a run tells better, with the command that installs it
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
    """Stands before every module that one thread imports. It finds nothing."""

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
    """Modules that loading the models of these functions takes, in the order in which to import them."""
    found: dict[str, None] = {}
    for function in functions:
        own = own_loaders(function.function) if function.injections else {}
        for injection in function.injections:
            if injection.type is LoraAdapter:
                found.update(dict.fromkeys((*_TORCH, "peft")))
            elif not any(kind == injection.type for kind in own):  # what an author's own loader imports is known to it alone
                found.update(dict.fromkeys(_NEEDS.get(family(injection.type), ())))
    return tuple(found)


def classes_named_in(path: Path) -> list[tuple[str, str]]:
    """Library and class of each part that a model's folder names."""
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
