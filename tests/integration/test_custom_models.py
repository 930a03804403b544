"""Model managers and downloaders that a program provides itself."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.blob_server import BlobServer
from tests.conftest import EXAMPLES, Runner

from gen_worker import CozyHubDownloader, ModelDownloader, PipelineConfig, PipelineLoader
from gen_worker.content.progress import Progress
from gen_worker.net.wanted import DownloadFailedError
from gen_worker.refs import ModelSpec
from gen_worker.residency.custom import downloader_source
from gen_worker.residency.pipeline_loader import CudaOutOfMemoryError, ModelDownloadError, ModelNotFoundError
from gen_worker.settings import ModelSettings
from gen_worker.sources.build import build_sources
from gen_worker.sources.source import ModelWant

DIGITS = EXAMPLES / "models/digits-sd"
CODE = """
from gen_worker import ModelManager, model_loader

class In(msgspec.Struct):
    prompt: str = ""

class Out(msgspec.Struct):
    text: str

class Engine:
    size_bytes = 12_000_000
    def __init__(self, text):
        self.text = text

class Other:
    @classmethod
    def from_pretrained(cls, path):
        return cls()

@model_loader(Engine)
def load_engine(path: Path, device: str, dtypes) -> Engine:
    return Engine(f"{path.name} on {device} in {'/'.join(dtypes)}")

UNLOADED = []

class Manager(ModelManager):
    def __init__(self):
        self.loaded = {}
    async def load(self, model_ref, local_path=None, **opts):
        if "other" in model_ref:
            return None
        if "wrong" in model_ref:
            return "a string"
        self.loaded[model_ref] = Engine(f"managed {model_ref} {Path(local_path).name} {opts['device']}")
        return self.loaded[model_ref]
    def get(self, model_ref):
        return self.loaded.get(model_ref)
    def unload(self, model_ref):
        UNLOADED.append(model_ref)
    def stats(self):
        return {}

@worker_function
def use(ctx: ActionContext, engine: Annotated[Engine, ModelRef(ModelRefSource.FIXED, "engine")], payload: In) -> Out:
    return Out(engine.text)

@worker_function
def other(ctx: ActionContext, engine: Annotated[Other, ModelRef(ModelRefSource.FIXED, "other")], payload: In) -> Out:
    return Out(type(engine).__name__)

@worker_function
def wrong(ctx: ActionContext, engine: Annotated[Engine, ModelRef(ModelRefSource.FIXED, "wrong")], payload: In) -> Out:
    return Out(engine.text)

@worker_function
def unloaded(ctx: ActionContext, payload: In) -> Out:
    return Out(",".join(UNLOADED))
"""
COZY = '[models]\nengine = "hf:demo/engine"\nother = "hf:demo/other"\nwrong = "hf:demo/wrong"\n'


@pytest.fixture
def folders(tmp_path: Path) -> list[str]:
    for name in ("engine", "other", "wrong"):
        (tmp_path / name).mkdir()
    return [argument for name in ("engine", "other", "wrong") for argument in ("--model", f"{name}={tmp_path / name}")]


def test_a_loader_of_the_author(project: Callable[..., Path], start_runner: Callable[..., Runner], folders: list[str]) -> None:
    runner = start_runner(project(CODE, COZY), *folders, env={"WORKER_DEVICE": "cpu"})
    assert runner.run("use", {}).json()["output"] == {"text": "engine on cpu in fp16/bf16"}
    assert runner.http.get("/v1/models/status").json()["model_cache"]["vram_used_gb"] == 0.01


def test_a_manager_comes_first(project: Callable[..., Path], start_runner: Callable[..., Runner], folders: list[str]) -> None:
    folder = project(CODE, COZY)
    (package,) = [path.name for path in (folder / "src").iterdir()]
    runner = start_runner(folder, *folders, env={"WORKER_DEVICE": "cpu", "MODEL_MANAGER_CLASS": f"{package}.main:Manager"})
    assert runner.run("use", {}).json()["output"] == {"text": "managed hf:demo/engine engine cpu"}
    assert runner.run("other", {}).json()["output"] == {"text": "Other"}
    assert "model injection type mismatch" in runner.run("wrong", {}).json()["error_message"]
    assert runner.http.post("/v1/models/unload", json={"model_id": "engine"}).json()["ok"]
    runner.until(lambda: runner.run("unloaded", {}).json()["output"]["text"] == "hf:demo/engine")


OF_THE_OTHER_FORM = """
from gen_worker.model_interface import ModelManagementInterface

class In(msgspec.Struct):
    prompt: str = ""

class Out(msgspec.Struct):
    text: str

class Manager(ModelManagementInterface):
    def __init__(self):
        self.loaded = {}
    async def process_supported_models_config(self, supported_model_ids, downloader_instance):
        raise AssertionError
    async def load_model_into_vram(self, model_id):
        self.loaded[model_id] = {"text": "of " + model_id}
        return True
    async def get_active_pipeline(self, model_id):
        return self.loaded.get(model_id)
    async def get_active_model_bundle(self, model_id):
        raise AssertionError
    def get_vram_loaded_models(self):
        return list(self.loaded)

@worker_function
def use(ctx: ActionContext, engine: Annotated[dict, ModelRef(ModelRefSource.FIXED, "engine")], payload: In) -> Out:
    return Out(engine.get("text") or f"{engine['model_id']} in {Path(engine['model_path']).name}")
"""


@pytest.mark.parametrize(
    ("manager", "text"),
    [("main:Manager", "of hf:demo/engine"), ("gen_worker.testing.stub_manager:StubModelManager", "hf:demo/engine in engine")],
)
def test_managers_of_projects_for_published_workers(
    manager: str, text: str, project: Callable[..., Path], start_runner: Callable[..., Runner], folders: list[str]
) -> None:
    folder = project(OF_THE_OTHER_FORM, COZY)
    (package,) = [path.name for path in (folder / "src").iterdir()]
    named = manager if "." in manager else f"{package}.{manager}"
    runner = start_runner(folder, *folders, env={"WORKER_DEVICE": "cpu", "MODEL_MANAGER_CLASS": named})
    assert runner.run("use", {}).json()["output"] == {"text": text}


class _Downloader(ModelDownloader):
    calls = 0

    def download(self, model_ref: str, dest_dir: str, filename: str | None = None) -> str:
        self.calls += 1
        (Path(dest_dir) / "weights").write_text(model_ref)
        return dest_dir


def test_a_downloader_of_the_program(tmp_path: Path) -> None:
    import threading

    downloader = _Downloader()
    settings = ModelSettings.from_env({"TENSORHUB_CACHE_DIR": str(tmp_path)})
    want = ModelWant("m", ModelSpec("cozy:demo/m:v1"))
    for _ in range(2):
        source = build_sources(settings, {}, downloader_source(downloader, settings)).source
        local = source.present(want) or source.fetch(want, Progress("m"), threading.Event())
        assert (local.path / "weights").read_text() == "cozy:demo/m:v1"
    assert downloader.calls == 1


@pytest.fixture
def server() -> Iterator[BlobServer]:
    with BlobServer() as server:
        yield server


def test_files_below_a_base(server: BlobServer, tmp_path: Path) -> None:
    server.add("/models/a b.bin", b"x" * 5000)
    server.add("/models/a%20b.bin", b"x" * 5000)
    downloader = CozyHubDownloader(f"{server.url}/models", "secret")
    assert Path(downloader.download("a b.bin", str(tmp_path))).read_bytes() == b"x" * 5000
    assert server.headers[-1]["authorization"] == "Bearer secret"
    with BlobServer() as other:
        url = other.add("/file", b"y" * 10)
        assert Path(downloader.download(url, str(tmp_path), "named")).read_bytes() == b"y" * 10
        assert all("authorization" not in headers for headers in other.headers)
    with pytest.raises(DownloadFailedError, match="404"):
        downloader.download("missing", str(tmp_path))
    with pytest.raises(ValueError, match="plain name"):
        downloader.download("a", str(tmp_path), "../b")
    with pytest.raises(ValueError, match="base_url"):
        CozyHubDownloader("ftp://x")


@pytest.mark.torch
def test_pipelines_without_a_worker(tmp_path: Path) -> None:
    pytest.importorskip("diffusers")

    async def run() -> None:
        loader = PipelineLoader(str(tmp_path), max_vram_gb=1)
        config = PipelineConfig(pipeline_class="StableDiffusionPipeline", dtype="fp32")
        loaded = await loader.load("demo/digits", str(DIGITS), config)
        assert (loaded.pipeline_class, loaded.load_format) == ("StableDiffusionPipeline", "safetensors")
        assert loaded.size_gb == pytest.approx(0.0043, rel=0.05)
        assert loader.get("demo/digits") is loaded.pipeline
        view = loader.get_for_inference("demo/digits")
        assert view.unet is loaded.pipeline.unet
        assert view.scheduler is not loaded.pipeline.scheduler
        assert (await loader.load("demo/digits")) is loaded
        assert loader.get_stats()["loaded_models"] == ["demo/digits"]
        with pytest.raises(ModelNotFoundError):
            await loader.load("demo/none", str(tmp_path / "none"))
        with pytest.raises(ModelDownloadError, match="orchestrator-resolved"):
            await loader.ensure_model_available("demo/remote")
        assert await loader.download_models(["demo/remote"]) == {"demo/remote": False}
        assert loader.unload("demo/digits")
        assert loader.get("demo/digits") is None
        assert not loader.unload("demo/digits")
        loader.close()
        small = PipelineLoader(str(tmp_path), max_vram_gb=0.001)
        with pytest.raises(CudaOutOfMemoryError, match="can be had"):
            await small.load("demo/digits", str(DIGITS), config)
        small.close()

    asyncio.run(run())


ENDINGS = """
import asyncio
from gen_worker import model_loader

class In(msgspec.Struct):
    how: str = ""

class Out(msgspec.Struct):
    text: str

class Engine:
    size_bytes = 10

ERRORS = {"exit": SystemExit(3), "interrupt": KeyboardInterrupt(), "stop": StopIteration(), "cancel": asyncio.CancelledError(), "generator": GeneratorExit()}

@model_loader(Engine)
def load_engine(path: Path) -> Engine:
    if path.name in ERRORS:
        raise ERRORS[path.name]
    return Engine()

class Manager:
    async def load(self, ref, path, **options):
        name = Path(path).name
        if name in ERRORS:
            raise ERRORS[name]
        return Engine()
    def unload(self, ref):
        raise SystemExit(4)
    async def get_for_inference(self, ref):
        await asyncio.sleep(0)
        if ref.endswith("view"):
            raise SystemExit(5)
        return Engine()

@worker_function
def use(ctx: ActionContext, engine: Annotated[Engine, ModelRef(ModelRefSource.PAYLOAD, "how")], payload: In) -> Out:
    return Out(type(engine).__name__)
"""
NAMES = ("exit", "interrupt", "stop", "cancel", "generator", "view", "good")


@pytest.mark.parametrize("managed", [False, True])
def test_what_a_loader_raises_ends_its_load_alone(
    project: Callable[..., Path], start_runner: Callable[..., Runner], tmp_path: Path, managed: bool
) -> None:
    folder = project(ENDINGS, "[models]\n" + "".join(f'{name} = "hf:demo/{name}"\n' for name in NAMES))
    (package,) = [path.name for path in (folder / "src").iterdir()]
    for name in NAMES:
        (tmp_path / "models" / name).mkdir(parents=True)
    models = [argument for name in NAMES for argument in ("--model", f"{name}={tmp_path / 'models' / name}")]
    env = {"WORKER_DEVICE": "cpu"} | ({"MODEL_MANAGER_CLASS": f"{package}.main:Manager"} if managed else {})
    runner = start_runner(folder, *models, env=env)
    for name in (*NAMES[:5], *(["view"] if managed else [])):
        answer = runner.run("use", {"how": name}).json()
        assert not answer["success"]
        assert "raised" in answer["error_message"], answer
    for _ in range(2):
        assert runner.run("use", {"how": "good"}).json()["output"] == {"text": "Engine"}
    assert runner.http.post("/v1/models/unload", json={"model_id": "good"}).json()["ok"]
    assert runner.run("use", {"how": "good"}).json()["output"] == {"text": "Engine"}
    assert runner.process.poll() is None
