"""Libraries are imported before the first run that needs them, without delaying other work."""

import asyncio
import importlib
import io
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import msgspec
import pytest
from tests.conftest import Runner, WorkerProcess
from tests.waiting import eventually, until

from gen_worker import ActionContext, LoraAdapter, ModelRef, ModelRefSource, worker_function
from gen_worker.authoring.signature import FunctionSpec, read_signature
from gen_worker.log import Log
from gen_worker.residency.devices import DeviceSet
from gen_worker.residency.imports_ahead import ImportsAhead, needed_by
from gen_worker.sources.source import LocalModel
from gen_worker.testing.fakes import FakeDevice
from gen_worker.testing.loopback import LoopbackScheduler

# Libraries of these names, of the project's own: torch is imported for as long as the test wants it to be.
TORCH = """
import importlib, pathlib, time
here = pathlib.Path(__file__).parent
(here / "begun").touch()
while not (here / "go").exists():
    try:
        importlib.import_module("not_there_at_all")
    except ImportError:
        time.sleep(0.001)
uint8 = "uint8"
def empty(*shape, **how): ...
class cuda:
    @staticmethod
    def is_available(): return False
class backends:
    class mps:
        @staticmethod
        def is_available(): return False
"""
TRANSFORMERS = """
class AutoModel:
    @classmethod
    def from_pretrained(cls, path): return cls()
"""
CODE = """
import pathlib
from transformers import AutoModel

with pathlib.Path(__file__).with_name("imported").open("a") as file:
    file.write("once\\n")

class In(msgspec.Struct):
    text: str = ""

class Out(msgspec.Struct):
    text: str

@worker_function()
def echo(ctx: ActionContext, payload: In) -> Out:
    return Out(payload.text)

@worker_function()
def use(ctx: ActionContext, payload: In, model: Annotated[AutoModel, ModelRef(ModelRefSource.FIXED, "m")]) -> Out:
    return Out(type(model).__name__)
"""
MODELS = '[models]\nm = "hf:some/model"\n'


@pytest.fixture
def folder(project: Callable[..., Path]) -> Path:
    found = project(CODE, MODELS)
    for name, code in {"torch": TORCH, "transformers": TRANSFORMERS}.items():
        (found / "src" / name).mkdir()
        (found / "src" / name / "__init__.py").write_text(code)
    (found / "src/transformers/modeling_utils.py").write_text("")
    return found


def imports_of(folder: Path) -> int:
    (file,) = (folder / "src").glob("*/imported")
    return len(file.read_text().splitlines())


async def test_a_worker_serves_while_it_imports(start_worker: Callable[..., WorkerProcess], folder: Path) -> None:
    async with LoopbackScheduler() as scheduler:
        worker = start_worker(folder, scheduler.address)
        await scheduler.worker()
        await eventually((folder / "src/torch/begun").exists)
        assert await scheduler.call("echo", {"text": "kite"}) == {"text": "kite"}
        assert worker.logged("imports.ahead") == []
        (folder / "src/torch/go").touch()
        await eventually(lambda: worker.logged("imports.ahead"))
        (line,) = worker.logged("imports.ahead")
        assert {"torch", "transformers"} <= set(line["modules"])
        assert line["seconds"] > 0
        assert imports_of(folder) == 1
        assert await asyncio.to_thread(worker.stop) == 0


async def test_a_worker_that_imports_can_be_told_to_end(start_worker: Callable[..., WorkerProcess], folder: Path) -> None:
    async with LoopbackScheduler() as scheduler:
        worker = start_worker(folder, scheduler.address)
        await scheduler.worker()
        await eventually((folder / "src/torch/begun").exists)
        assert await asyncio.to_thread(worker.stop, 60) == 0
        assert worker.logged("process.left_running") == []  # it ended between two modules, by itself


def test_the_dev_runner_imports_ahead(start_runner: Callable[..., Runner], folder: Path) -> None:
    runner = start_runner(folder)
    until((folder / "src/torch/begun").exists)
    assert runner.run("echo", {"text": "kite"}).json()["output"] == {"text": "kite"}
    (folder / "src/torch/go").touch()
    until(lambda: "imported torch, transformers ahead of the first run" in runner.log.read_text())
    assert imports_of(folder) == 1
    assert runner.stop() == 0


# What is imported for which models.


class In(msgspec.Struct):
    text: str = ""


class Engine:
    @classmethod
    def from_pretrained(cls, path: str) -> "Engine":
        return cls()


def taking(kind: Any) -> FunctionSpec:
    def function(ctx: ActionContext, payload: In, model: Any) -> In:
        return payload

    function.__annotations__ = {
        "ctx": ActionContext,
        "payload": In,
        "model": Annotated[kind, ModelRef(ModelRefSource.FIXED, "m")],
        "return": In,
    }
    return read_signature(worker_function(function))


def kind_of(library: str) -> Any:
    """A class that looks like one of a library's."""
    return type("Model", (), {"__module__": f"{library}.models", "from_pretrained": classmethod(lambda cls, path: cls())})


def test_what_models_need() -> None:
    assert needed_by([taking(Path), taking(Engine)]) == ()
    assert needed_by([taking(kind_of("onnxruntime"))]) == ("onnxruntime",)
    assert needed_by([taking(LoraAdapter)])[-1] == "peft"
    both = needed_by([taking(kind_of("diffusers")), taking(kind_of("transformers")), taking(Path)])
    assert both[0] == "torch"
    assert {"transformers.modeling_utils", "diffusers.pipelines.pipeline_utils"} < set(both)
    assert len(set(both)) == len(both)


@pytest.fixture
def libraries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where to write what stands for libraries; they are forgotten afterwards, and the real ones come back."""
    names = ("torch", "safetensors", "transformers", "diffusers", "peft")
    real = {name: module for name, module in sys.modules.items() if name.partition(".")[0] in names}
    for name in real:
        del sys.modules[name]
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] in names]:
        del sys.modules[name]
    sys.modules.update(real)
    importlib.invalidate_caches()


def write(folder: Path, **modules: str) -> None:
    for name, code in modules.items():
        file = folder.joinpath(*name.split("__")) / "__init__.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(code)
    importlib.invalidate_caches()


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "imports-ahead"]


def test_devices_are_made_ready_and_broken_libraries_are_said(libraries: Path) -> None:
    write(libraries, torch="", safetensors="", safetensors__torch="1 / 0", peft="")
    log, devices = io.StringIO(), [FakeDevice(100), FakeDevice(100)]
    ahead = ImportsAhead(DeviceSet(lambda: devices), Log(log), lambda: 0)
    ahead.begin([taking(LoraAdapter)])
    ahead.begin([taking(LoraAdapter)])  # the same again, as after each change of the author's code
    until(lambda: not threads())
    assert [device.preparations for device in devices] == [1, 1]
    assert "module=safetensors.torch error=ZeroDivisionError" in log.getvalue()
    assert log.getvalue().count("imported torch, peft ahead of the first run") == 1
    assert not [finder for finder in sys.meta_path if type(finder).__module__.startswith("gen_worker.residency")]


def test_the_classes_of_a_model_that_has_come(libraries: Path, tmp_path: Path) -> None:
    lazily = """
import importlib
def __getattr__(name):
    if name != "SomeModel":
        raise AttributeError(name)
    return importlib.import_module("transformers.inside")
"""
    write(libraries, torch="", transformers=lazily, transformers__inside="", transformers__modeling_utils="")
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text('{"architectures": ["Gone", "SomeModel"]}')
    ahead = ImportsAhead(DeviceSet(lambda: [FakeDevice(100)]), Log(io.StringIO()), lambda: 0)
    ahead.arrived(LocalModel("m", model), ("transformers.AutoModel",))
    assert threads() == []  # not before the worker is registered
    ahead.begin([taking(kind_of("transformers"))])
    until(lambda: not threads())
    assert "transformers.inside" in sys.modules


def test_nothing_follows_the_end(libraries: Path) -> None:
    began, go = threading.Event(), threading.Event()
    write(libraries, torch="import sys; sys.modules['began_and_go'].began.set(); sys.modules['began_and_go'].go.wait(60)", peft="")
    sys.modules["began_and_go"] = holder = type(sys)("began_and_go")
    holder.began, holder.go = began, go
    device = FakeDevice(100)
    ahead = ImportsAhead(DeviceSet(lambda: [device]), Log(io.StringIO()), lambda: 0)
    ahead.begin([taking(LoraAdapter)])
    assert began.wait(60)
    ahead.close()
    go.set()
    until(lambda: not threads())
    assert "peft" not in sys.modules
    assert device.preparations == 0
    del sys.modules["began_and_go"]
