"""Which files are chosen from repositories as they are really published."""

from typing import Any

import pytest

from gen_worker.sources.file_plan import FilePlan, Knowledge, Needs, PlanError, SelectionPolicy, plan_files

GB = 10**9
SD15 = {
    "model_index.json": 541,
    "README.md": 14_000,
    "v1-inference.yaml": 1_873,
    "v1-5-pruned.ckpt": 7_700_000_000,
    "v1-5-pruned-emaonly.safetensors": 4_265_146_304,
    "feature_extractor/preprocessor_config.json": 342,
    "safety_checker/config.json": 4_723,
    "safety_checker/model.safetensors": 1_215_981_830,
    "safety_checker/model.fp16.safetensors": 608_018_440,
    "scheduler/scheduler_config.json": 308,
    "text_encoder/config.json": 617,
    "text_encoder/model.safetensors": 492_265_880,
    "text_encoder/model.fp16.safetensors": 246_144_152,
    "text_encoder/pytorch_model.bin": 492_305_335,
    "tokenizer/merges.txt": 524_619,
    "tokenizer/vocab.json": 1_059_962,
    "unet/config.json": 743,
    "unet/diffusion_pytorch_model.safetensors": 3_438_167_540,
    "unet/diffusion_pytorch_model.fp16.safetensors": 1_719_125_304,
    "unet/diffusion_pytorch_model.non_ema.safetensors": 3_438_167_540,
    "unet/diffusion_pytorch_model.bin": 3_438_354_725,
    "vae/config.json": 547,
    "vae/diffusion_pytorch_model.safetensors": 334_643_276,
    "vae/diffusion_pytorch_model.fp16.safetensors": 167_335_342,
    "vae/diffusion_pytorch_model.ckpt": 334_643_276,
}
SD15_INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "feature_extractor": ["transformers", "CLIPImageProcessor"],
    "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
    "scheduler": ["diffusers", "PNDMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}


def settle(sizes: dict[str, int], documents: dict[str, Any], precision: Any, **how: Any) -> FilePlan:
    """Plan as the downloader does: give what is asked for until nothing is."""
    policy = SelectionPolicy(**how)
    known: dict[str, Any] = {}
    headers: dict[str, str | None] = {}
    while isinstance(plan := plan_files(Knowledge(sizes, known, headers), policy), Needs):
        known |= {path: documents[path] for path in plan.documents}
        headers |= {path: precision(path) for path in plan.headers}
    return plan


def by_name(path: str) -> str:
    return "fp16" if "fp16" in path else "fp32"


def sd15(**how: Any) -> set[str]:
    return set(settle(SD15, {"model_index.json": SD15_INDEX}, by_name, **how).files)


def test_stable_diffusion() -> None:
    files = sd15()
    assert files == {
        "model_index.json",
        "scheduler/scheduler_config.json",
        "text_encoder/config.json",
        "text_encoder/model.fp16.safetensors",
        "tokenizer/merges.txt",
        "tokenizer/vocab.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "vae/config.json",
        "vae/diffusion_pytorch_model.fp16.safetensors",
    }
    assert sum(SD15[path] for path in files) < 2.2 * GB


def test_the_switches() -> None:
    assert "unet/diffusion_pytorch_model.safetensors" in sd15(precisions=("fp32",))
    assert "unet/diffusion_pytorch_model.fp16.safetensors" in sd15(precisions=("fp16", "fp32"))
    assert {path.partition("/")[0] for path in sd15(components=("unet", "vae"))} == {"model_index.json", "unet", "vae"}
    assert "safety_checker/model.fp16.safetensors" in sd15(optional_components=True)
    assert sd15(full_repo=True) == set(SD15)
    with pytest.raises(PlanError, match="excessively large"):
        sd15(max_bytes=GB)
    with pytest.raises(PlanError, match="names 'unit', which the repository lacks"):
        sd15(components=("unit",))
    with pytest.raises(PlanError, match=r'allowed are bf16\. Allow it with dtypes = \["fp16"\]'):
        sd15(precisions=("bf16",))


def test_names_lie_and_headers_do_not() -> None:
    """Everything called fp16 is float32 inside, the unmarked files are half precision."""
    plan = settle(SD15, {"model_index.json": SD15_INDEX}, lambda path: "fp32" if "fp16" in path else "fp16")
    assert "unet/diffusion_pytorch_model.safetensors" in plan.files
    assert not any("fp16" in path for path in plan.files)


def test_what_is_left_out_is_named() -> None:
    plan = settle(SD15, {"model_index.json": SD15_INDEX}, by_name)
    assert set(plan.left_out) == {
        "text_encoder/pytorch_model.bin",
        "unet/diffusion_pytorch_model.bin",
        "vae/diffusion_pytorch_model.ckpt",
    }


def test_flux_with_shards() -> None:
    index = "transformer/diffusion_pytorch_model.safetensors.index.json"
    shards = [f"transformer/diffusion_pytorch_model-0000{n}-of-00003.safetensors" for n in (1, 2, 3)]
    sizes = {"model_index.json": 500, index: 120_000, "transformer/config.json": 378, "flux1-schnell.safetensors": 23_782_506_688}
    sizes |= dict.fromkeys(shards, 8 * GB) | {"tokenizer_2/spiece.model": 800_000, "tokenizer_2/special_tokens_map.json": 2_500}
    documents = {
        "model_index.json": {"transformer": ["diffusers", "FluxTransformer2DModel"], "tokenizer_2": ["transformers", "T5TokenizerFast"]},
        index: {"weight_map": {"a": shards[0].partition("/")[2], "b": shards[1].partition("/")[2], "c": shards[2].partition("/")[2]}},
    }
    plan = settle(sizes, documents, lambda path: "bf16")
    assert set(plan.files) == {*sizes} - {"flux1-schnell.safetensors"}
    assert next(part.precision for part in plan.components if part.name == "transformer") == "bf16"


def test_a_tokenizer_without_its_files() -> None:
    sizes = {"model_index.json": 1, "tokenizer/readme.txt": 1}
    with pytest.raises(PlanError, match=r"'tokenizer' has none of tokenizer\.json"):
        settle(sizes, {"model_index.json": {"tokenizer": ["transformers", "CLIPTokenizer"]}}, by_name)


def test_a_repository_without_an_index() -> None:
    sizes = {"unet/config.json": 1, "unet/diffusion_pytorch_model.safetensors": 9, "vae/config.json": 1, "vae/x.safetensors": 9, "odd/y": 1}
    assert set(settle(sizes, {}, lambda path: "fp16").files) == set(sizes) - {"odd/y"}


@pytest.mark.parametrize(
    ("sizes", "how", "expected"),
    [
        ({"config.json": 1, "model.safetensors": 9, "model.bin": 9, "onnx/model.onnx": 9, "vocab.txt": 1, "train.py": 1}, {}, {"config.json", "model.safetensors", "vocab.txt"}),
        ({"config.json": 1, "consolidated.safetensors": 9, "model.safetensors": 9}, {}, {"config.json", "model.safetensors"}),
        ({"m.Q4_K_M.gguf": 4, "m.Q8_0.gguf": 8, "m.F16.gguf": 16}, {"precisions": ("int4",)}, {"m.Q4_K_M.gguf"}),
        ({"m.Q4_K_M.gguf": 4, "m.Q8_0.gguf": 8, "m.F16.gguf": 16}, {}, {"m.F16.gguf"}),
        ({"m-Q8_0-00001-of-00002.gguf": 4, "m-Q8_0-00002-of-00002.gguf": 4}, {"precisions": ("int8",)}, {"m-Q8_0-00001-of-00002.gguf", "m-Q8_0-00002-of-00002.gguf"}),
        ({"model.onnx": 1, "model.onnx_data": 9, "model_fp16.onnx": 5, "config.json": 1}, {"precisions": ("fp32",)}, {"model.onnx", "model.onnx_data", "config.json"}),
        ({"model.onnx": 1, "model_fp16.onnx": 5}, {}, {"model_fp16.onnx"}),
        ({"tokenizer.json": 5, "README.md": 1}, {}, {"tokenizer.json"}),
    ],
)  # fmt: skip
def test_other_kinds(sizes: dict[str, int], how: dict[str, Any], expected: set[str]) -> None:
    assert set(settle(sizes, {}, lambda path: "fp16", **how).files) == expected


def test_nothing_to_take() -> None:
    with pytest.raises(PlanError, match="no files of a model"):
        settle({"README.md": 1}, {}, by_name)
    with pytest.raises(PlanError, match="can run code"):
        settle({"config.json": 1, "model.ckpt": 1}, {}, by_name)


def test_code_of_a_repository_is_refused_before_the_download() -> None:
    index = {"_class_name": "X", "unet": ["my_unet", "MyUNet"]}
    sizes = {"model_index.json": 1, "unet/config.json": 1, "unet/my_unet.py": 1, "unet/diffusion_pytorch_model.safetensors": 9}
    with pytest.raises(PlanError, match=r"the class MyUNet of unet/my_unet\.py: code from repositories is never run"):
        settle(sizes, {"model_index.json": index}, by_name, takers=("diffusers.DiffusionPipeline",), precisions=("fp32",))
    files = settle(sizes, {"model_index.json": index}, by_name, takers=("pathlib.Path",), precisions=("fp32",)).files
    assert set(files) == set(sizes) - {"unet/my_unet.py"}


def test_folders_that_are_named() -> None:
    sizes = {"a/x.safetensors": 9, "a/config.json": 1, "a/x.bin": 9, "b/y.safetensors": 9, "b/c/z.onnx": 5, "b/c/z.onnx.json": 1}
    assert set(settle(sizes, {}, lambda path: "fp16", components=("a",)).files) == {"a/x.safetensors", "a/config.json"}
    assert set(settle(sizes, {}, lambda path: "fp16", components=("b/c",)).files) == {"b/c/z.onnx", "b/c/z.onnx.json"}
    with pytest.raises(PlanError, match="COZY_HF_COMPONENTS names 'd'"):
        settle(sizes, {}, by_name, components=("d",))


def test_an_onnx_session_of_a_repository_without_onnx() -> None:
    with pytest.raises(PlanError, match=r"no \.onnx file"):
        settle({"config.json": 1, "model.safetensors": 9}, {}, by_name, takers=("onnxruntime.InferenceSession",))


def test_an_encoder_and_a_decoder_of_onnx_are_one_model_to_optimum_and_two_to_a_session() -> None:
    sizes = {"config.json": 1, "onnx/encoder_model.onnx": 5, "onnx/decoder_model_merged.onnx": 5, "onnx/decoder_model.onnx": 5}
    plan = settle(sizes, {}, by_name, takers=("optimum.onnxruntime.ORTModelForSeq2SeqLM",), precisions=("fp32",))
    assert set(plan.files) == set(sizes) - {"onnx/decoder_model.onnx"}
    with pytest.raises(PlanError, match=r"2 onnx models .*; one session needs one"):
        settle(sizes, {}, by_name, takers=("onnxruntime.InferenceSession",), precisions=("fp32",))


@pytest.mark.parametrize("name", ["open_clip_model", "open_clip_pytorch_model"])
def test_open_clip_reads_weights_by_its_own_names(name: str) -> None:
    sizes = {"open_clip_config.json": 1, "tokenizer.json": 1, f"{name}.safetensors": 9, "model.safetensors": 5}
    plan = settle(sizes, {}, lambda path: "fp16", takers=("open_clip.CLIP",))
    assert set(plan.files) == set(sizes) - {"model.safetensors"}
