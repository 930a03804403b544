"""Models that are loaded again after an eviction: equal to the libraries' own, with aligned weights."""

import asyncio
import gc
import io
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.integration.test_adapters import kohya
from tests.loading import DEVICE, draw, same_modules
from tests.tiny_models import tiny_chat_model, tiny_flux, tiny_sdxl, tiny_whisper

from gen_worker.authoring.adapters import LoraAdapter
from gen_worker.content.measured import Measurements
from gen_worker.content.progress import Progress
from gen_worker.log import Log
from gen_worker.residency.accounting import ModelCache
from gen_worker.residency.device import TorchDevice
from gen_worker.residency.layout import ALIGN
from gen_worker.residency.loaders.base import LoadControl, Loaded, Loader, LoadPlan, LoadRequest, PartPlan
from gen_worker.residency.loaders.diffusers import DiffusersLoader
from gen_worker.residency.loaders.skeletons import Skeletons
from gen_worker.residency.loaders.transformers import TransformersLoader
from gen_worker.residency.loaders.weights import find_weights, load_tensors
from gen_worker.residency.loads import Residency
from gen_worker.residency.reader import ReadCanceledError

MODELS = Path(__file__).parents[2] / "examples/models"
torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")
transformers = pytest.importorskip("transformers")
safetensors_torch = pytest.importorskip("safetensors.torch")
pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore:Already found a `peft_config`")]


class Host:
    """A residency with one model, loaded and evicted at will."""

    def __init__(self, loader: Loader, kind: Any, path: Path, dtypes: tuple[str, ...] = ("fp32",), saving_level: int = 0) -> None:
        self.cache = ModelCache(max_vram_gb=1)
        self.skeletons = Skeletons()
        self.log = io.StringIO()
        self.request = LoadRequest(kind, path, lambda: DEVICE, dtypes, saving_level=saving_level, skeletons=self.skeletons)
        self._loader = loader

    def run(self, use: Callable[["Host", Residency], Any]) -> None:
        async def main() -> None:
            residency = Residency(self.cache, lambda: DEVICE, Measurements(None), Log(self.log), skeletons=self.skeletons)
            try:
                await use(self, residency)
            finally:
                residency.close()

        asyncio.run(main())

    async def load(self, residency: Residency) -> Loaded:
        made_for = (self.request.annotation, self.request.path, self.request.dtypes, self.request.saving_level)
        found = await residency.plan("m#x", lambda: self._loader.plan(self.request), made_for)
        loaded = await residency.load("m#x", found, Progress("m"), threading.Event())
        residency.release_load(found)
        return loaded

    def evict(self, residency: Residency) -> None:
        assert self.cache.unload_model("m#x")
        residency.forget_dropped()
        assert self.cache.ledger.used_bytes == 0


def modules_of(model: Any) -> dict[str, Any]:
    parts = model.components if hasattr(model, "components") else {"model": model}
    return {name: part for name, part in parts.items() if isinstance(part, torch.nn.Module)}


def tensors_of(module: Any) -> list[Any]:
    return [*module.parameters(), *module.buffers()]


def text_model(folder: Path) -> Path:
    torch.manual_seed(1)
    config = transformers.LlamaConfig(
        hidden_size=36, intermediate_size=99, num_hidden_layers=2, num_attention_heads=6, num_key_value_heads=3, vocab_size=131
    )
    transformers.LlamaForCausalLM(config).save_pretrained(folder, max_shard_size="40KB")
    return folder


PIPELINES = {"digits": lambda folder: MODELS / "digits-sd", "sdxl": tiny_sdxl, "flux": tiny_flux}
LANGUAGE: dict[str, tuple[Any, str]] = {
    "llama": (text_model, "LlamaForCausalLM"),
    "qwen": (tiny_chat_model, "AutoModelForCausalLM"),
    "whisper": (tiny_whisper, "WhisperForConditionalGeneration"),
}


@pytest.mark.parametrize("dtypes", [("fp32",), ("fp8", "fp32")])
@pytest.mark.parametrize("name", PIPELINES)
def test_pipelines_after_ten_evictions(tmp_path: Path, name: str, dtypes: tuple[str, ...]) -> None:
    folder = PIPELINES[name](tmp_path / "model")
    theirs = diffusers.DiffusionPipeline.from_pretrained(folder, dtype=torch.float32)
    host = Host(DiffusersLoader(), diffusers.DiffusionPipeline, folder, dtypes)

    async def use(host: Host, residency: Residency) -> None:
        first: dict[str, Any] = {}
        pipe = None
        for _ in range(11):
            loaded = await host.load(residency)
            for part, module in modules_of(loaded.model).items():
                assert all(tensor.data_ptr() % 16 == 0 for tensor in tensors_of(module)), part
                if dtypes == ("fp32",):
                    same_modules(module, getattr(theirs, part))
                    assert all(tensor.data_ptr() % ALIGN == 0 for tensor in module.parameters()), part
                elif part in first:
                    assert module.state_dict().keys() == first[part].keys()
                    assert all(torch.equal(tensor.float(), first[part][key]) for key, tensor in module.state_dict().items())
                else:
                    first[part] = {key: tensor.float().clone() for key, tensor in module.state_dict().items()}
            pipe = pipe or loaded.model
            assert loaded.model is pipe, "the pipeline and its modules are kept"
            host.evict(residency)
            assert all(tensor.is_meta for module in modules_of(pipe).values() for tensor in module.parameters())

    host.run(use)


@pytest.mark.parametrize("name", LANGUAGE)
def test_language_models_after_ten_evictions(tmp_path: Path, name: str) -> None:
    make, kind_name = LANGUAGE[name]
    folder, kind = make(tmp_path / "model"), getattr(transformers, kind_name)
    theirs = kind.from_pretrained(folder, dtype=torch.float32).eval()
    host = Host(TransformersLoader(), kind, folder)

    async def use(host: Host, residency: Residency) -> None:
        model = None
        for _ in range(11):
            loaded = await host.load(residency)
            same_modules(loaded.model, theirs)
            assert all(tensor.data_ptr() % 16 == 0 for tensor in tensors_of(loaded.model))
            if name != "whisper":  # each run may change what the next must not see
                ids = torch.tensor([[1, 2, 3]])
                with torch.inference_mode():
                    assert torch.equal(loaded.model(ids).logits, theirs(ids).logits)
                    loaded.model.generate(ids, max_new_tokens=2, do_sample=False)
            model = model or loaded.model
            assert loaded.model is model
            host.evict(residency)

    host.run(use)


@pytest.mark.parametrize(("dtypes", "saving_level"), [(("fp32",), 0), (("fp32",), 1), (("fp8", "fp32"), 0)])
def test_pictures_after_evictions_with_savings_and_adapters(tmp_path: Path, dtypes: tuple[str, ...], saving_level: int) -> None:
    host = Host(DiffusersLoader(), diffusers.StableDiffusionPipeline, MODELS / "digits-sd", dtypes, saving_level)

    async def use(host: Host, residency: Residency) -> None:
        pictures: list[tuple[Any, Any]] = []
        for _ in range(4):
            view = (await host.load(residency)).view()
            adapter = LoraAdapter(kohya(view, "unet", "text_encoder"), tmp_path / "k.safetensors")
            assert view.vae.use_tiling == bool(saving_level)
            pictures.append((draw(view, "seven"), draw(adapter.apply(view, 0.5), "seven")))
            assert (draw(view, "seven") == pictures[-1][0]).all()
            host.evict(residency)
        assert all((plain == pictures[0][0]).all() and (styled == pictures[0][1]).all() for plain, styled in pictures)

    host.run(use)


@pytest.mark.filterwarnings("ignore:__array_:DeprecationWarning")  # of schedulers, about numpy
@pytest.mark.parametrize("name", ["sdxl", "flux"])
def test_pictures_are_the_librarys_after_ten_evictions(tmp_path: Path, name: str) -> None:
    folder = PIPELINES[name](tmp_path / "model")
    theirs = diffusers.DiffusionPipeline.from_pretrained(folder, dtype=torch.float32)
    theirs.set_progress_bar_config(disable=True)
    expected = draw(theirs, "seven")
    host = Host(DiffusersLoader(), diffusers.DiffusionPipeline, folder)

    async def use(host: Host, residency: Residency) -> None:
        for _ in range(11):
            assert abs(draw((await host.load(residency)).view(), "seven") - expected).max() < 1e-4  # the libraries' own repeat to 1e-6
            host.evict(residency)

    host.run(use)


CHANGES: dict[str, Callable[[Any], Any]] = {
    "hook": lambda pipe: pipe.unet.conv_in.register_forward_hook(lambda module, inputs, output: output * 2),
    "layer": lambda pipe: setattr(pipe.unet, "conv_out", torch.nn.Conv2d(32, 8, 3)),
    "weight": lambda pipe: setattr(pipe.unet.conv_in, "weight", torch.nn.Parameter(torch.zeros(1))),
    "processor": lambda pipe: pipe.unet.set_attn_processor(diffusers.models.attention_processor.AttnProcessor()),
    "tiles": lambda pipe: pipe.vae.enable_tiling(),
    "training": lambda pipe: pipe.text_encoder.train(),
    "config": lambda pipe: setattr(pipe.text_encoder.config, "eos_token_id", 7),
    "buffer": lambda pipe: pipe.text_encoder.register_buffer("more", torch.zeros(3)),
    "word": lambda pipe: pipe.tokenizer.add_tokens(["a-new-word"]),
    "attribute": lambda pipe: setattr(pipe, "something", 3),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_an_author_changed_ends_with_its_eviction(change: str) -> None:
    """As it always did: the next load is made anew."""
    host = Host(DiffusersLoader(), diffusers.StableDiffusionPipeline, MODELS / "digits-sd")
    theirs = diffusers.StableDiffusionPipeline.from_pretrained(MODELS / "digits-sd", dtype=torch.float32)
    theirs.set_progress_bar_config(disable=True)
    expected = draw(theirs, "seven")

    async def use(host: Host, residency: Residency) -> None:
        loaded = await host.load(residency)
        CHANGES[change](loaded.model)
        old = weakref.ref(loaded.model)
        del loaded
        host.evict(residency)
        loaded = await host.load(residency)
        for part, module in modules_of(loaded.model).items():
            same_modules(module, getattr(theirs, part))
        assert (draw(loaded.view(), "seven") == expected).all()
        assert len(loaded.model.tokenizer) == len(theirs.tokenizer)
        assert not loaded.model.vae.use_tiling
        gc.collect()
        assert old() is None or change not in ("word", "attribute")

    host.run(use)


def test_files_that_were_exchanged_are_loaded_anew(tmp_path: Path) -> None:
    folder = tiny_sdxl(tmp_path / "model")
    host = Host(DiffusersLoader(), diffusers.DiffusionPipeline, folder)

    async def use(host: Host, residency: Residency) -> None:
        await host.load(residency)
        host.evict(residency)
        tiny_sdxl(folder, seed=5)
        theirs = diffusers.DiffusionPipeline.from_pretrained(folder, dtype=torch.float32)
        loaded = await host.load(residency)
        for part, module in modules_of(loaded.model).items():
            same_modules(module, getattr(theirs, part))

    host.run(use)


def test_the_host_gets_its_memory_back_off_the_loop() -> None:
    """Giving back the weights of a large model takes tens of milliseconds, in which the loop must serve."""
    host = Host(DiffusersLoader(), diffusers.StableDiffusionPipeline, MODELS / "digits-sd")
    freed_in: list[int] = []

    async def use(host: Host, residency: Residency) -> None:
        loop, gone = asyncio.get_running_loop(), asyncio.Event()
        loaded = await host.load(residency)
        parameters = list(loaded.model.unet.parameters())
        count = len(parameters)

        def freed() -> None:
            freed_in.append(threading.get_ident())
            if len(freed_in) == count:
                loop.call_soon_threadsafe(gone.set)

        for parameter in parameters:
            weakref.finalize(parameter, freed)
        del loaded, parameters, parameter
        host.evict(residency)
        async with asyncio.timeout(60):
            await gone.wait()
        assert threading.get_ident() not in freed_in

    host.run(use)


def test_objects_of_authors_go_off_the_loop() -> None:
    """What goes with them is their code: it may take as long as it likes."""

    class Engine:
        pass

    found_in: list[int] = []

    async def main() -> None:
        loop, gone = asyncio.get_running_loop(), asyncio.Event()

        def freed() -> None:
            found_in.append(threading.get_ident())
            loop.call_soon_threadsafe(gone.set)

        def load(control: LoadControl) -> tuple[Any, int]:
            engine = Engine()
            weakref.finalize(engine, freed)
            return engine, 1000

        def assemble(parts: Any) -> Loaded:
            engine = parts["p"]
            return Loaded(engine, 1000, lambda: engine)

        cache = ModelCache(max_vram_gb=1)
        residency = Residency(cache, lambda: DEVICE, Measurements(None), Log(io.StringIO()))
        plan = LoadPlan((PartPlan("p", 1000, load),), assemble)
        await residency.load("m#x", plan, Progress("m"), threading.Event())
        residency.release_load(plan)
        assert cache.unload_model("m#x")
        residency.forget_dropped()
        async with asyncio.timeout(60):
            await gone.wait()
        residency.close()

    asyncio.run(main())
    assert threading.get_ident() not in found_in


def test_a_reload_that_was_stopped_or_broke_leaves_the_skeleton(tmp_path: Path) -> None:
    folder = text_model(tmp_path / "model")
    theirs = transformers.LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    skeletons = Skeletons()
    request = LoadRequest(transformers.LlamaForCausalLM, folder, lambda: DEVICE, ("fp32",), skeletons=skeletons)
    (part,) = TransformersLoader().plan(request).parts
    stopped = threading.Event()
    stopped.set()
    quiet = LoadControl(lambda size_bytes: None, threading.Event())
    first, _ = part.load(quiet)
    skeletons.strip(part.part_id)
    with pytest.raises(ReadCanceledError):
        part.load(LoadControl(lambda size_bytes: None, stopped))
    content = {file: file.read_bytes() for file in folder.glob("*.safetensors")}
    for file, data in content.items():
        file.write_bytes(data[: len(data) // 2])  # shorter than its header says, since the plan was made
    with pytest.raises(OSError, match="bytes early"):
        part.load(quiet)
    for file, data in content.items():
        file.write_bytes(data)
    again, _ = part.load(quiet)
    assert again is first
    same_modules(again, theirs)


def test_waiting_skeletons_are_bounded(tmp_path: Path) -> None:
    folder = text_model(tmp_path / "model")
    skeletons = Skeletons(limit_bytes=600_000)
    control = LoadControl(lambda size_bytes: None, threading.Event())
    parts = []
    for number in range(8):
        (folder / "extra_config.json").write_text(str(number))  # another identity each time
        request = LoadRequest(transformers.LlamaForCausalLM, folder, lambda: DEVICE, ("fp32",), skeletons=skeletons)
        (part,) = TransformersLoader().plan(request).parts
        parts.append((part.part_id, weakref.ref(part.load(control)[0])))
        skeletons.strip(part.part_id)
    gc.collect()
    assert 0 < skeletons.host_bytes <= 600_000
    held = [part_id for part_id, module in parts if module() is not None]
    assert held == [part_id for part_id, _ in parts][-len(held) :]
    assert len(held) < 8


@pytest.mark.parametrize("seed", range(4))
def test_tensors_of_odd_sizes_lie_at_aligned_places(tmp_path: Path, seed: int) -> None:
    torch.manual_seed(seed)
    dtypes = [torch.float16, torch.float32, torch.bfloat16, torch.int8, torch.int64, torch.bool]
    written = {}
    for number in range(60):
        dtype = dtypes[int(torch.randint(len(dtypes), ()))]
        shape = torch.randint(0, 23, (int(torch.randint(1, 4, ())),)).tolist()
        written[f"t{number}"] = torch.randint(0, 2, shape).to(dtype)
    safetensors_torch.save_file(written, tmp_path / "model.safetensors")
    read = load_tensors(find_weights(tmp_path, ()), TorchDevice("cpu"), LoadControl(lambda size_bytes: None, threading.Event()))
    assert read.keys() == written.keys()
    for name, tensor in written.items():
        assert torch.equal(read[name], tensor)
        assert read[name].data_ptr() % ALIGN == 0 or not tensor.numel()
        assert read[name].is_contiguous()
