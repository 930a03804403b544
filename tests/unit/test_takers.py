"""Which files each class reads: the plan for a class of every family, from listings that contain more files."""

import pytest

from gen_worker.sources.file_plan import FilePlan, Knowledge, Needs, PlanError, SelectionPolicy, plan_files

TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
NOISE = ("README.md", "images/kite.png", ".gitattributes", "onnx/model.onnx", "sub/config.json", "sub/tokenizer.json")


def plan(taker: str, *paths: str, documents: dict[str, object] | None = None) -> FilePlan:
    sizes = dict.fromkeys((*paths, *NOISE), 10)
    known: dict[str, object] = {}
    headers: dict[str, str | None] = {}
    while isinstance(found := plan_files(Knowledge(sizes, known, headers), SelectionPolicy(takers=(taker,))), Needs):  # type: ignore[arg-type]
        known |= {path: (documents or {}).get(path, {}) for path in found.documents}
        headers |= dict.fromkeys(found.headers, "fp16")
    return found


@pytest.mark.parametrize(
    ("taker", "paths", "kind", "taken"),
    [
        ("transformers.AutoTokenizer", (*TOKENIZER, "config.json", "model.safetensors"), "tokenizer", {*TOKENIZER, "config.json"}),
        (
            "transformers.AutoConfig",
            ("config.json", "generation_config.json", "model.safetensors"),
            "config",
            {"config.json", "generation_config.json"},
        ),
        (
            "transformers.AutoImageProcessor",
            ("preprocessor_config.json", "config.json", *TOKENIZER, "model.safetensors"),
            "processor",
            {"preprocessor_config.json", "config.json"},
        ),
        (
            "transformers.WhisperProcessor",
            ("preprocessor_config.json", "config.json", *TOKENIZER, "model.safetensors"),
            "processor",
            {"preprocessor_config.json", "config.json", *TOKENIZER},
        ),
        (
            "transformers.CLIPImageProcessorPil",
            ("preprocessor_config.json", *TOKENIZER, "model.safetensors"),
            "processor",
            {"preprocessor_config.json"},
        ),
        (
            "transformers.AutoModel",
            ("config.json", "generation_config.json", "model.safetensors", *TOKENIZER),
            "transformers",
            {"config.json", "generation_config.json", "model.safetensors"},
        ),
        (
            "transformers.Pipeline",
            ("config.json", "model.safetensors", *TOKENIZER),
            "transformers",
            {"config.json", "model.safetensors", *TOKENIZER, "sub/config.json", "sub/tokenizer.json"},  # as it is published
        ),
        (
            "transformers.pipelines.text_generation.TextGenerationPipeline",
            ("config.json", "model.safetensors", *TOKENIZER),
            "transformers",
            {"config.json", "model.safetensors", *TOKENIZER, "sub/config.json", "sub/tokenizer.json"},
        ),
        (
            "diffusers.UNet2DConditionModel",
            ("config.json", "model.safetensors", *TOKENIZER),
            "transformers",
            {"config.json", "model.safetensors"},
        ),
        ("diffusers.DDIMScheduler", ("scheduler_config.json", "model.safetensors"), "scheduler", {"scheduler_config.json"}),
        (
            "timm.models.VisionTransformer",
            ("config.json", "model.safetensors", *TOKENIZER),
            "transformers",
            {"config.json", "model.safetensors"},
        ),
        (
            "sentence_transformers.CrossEncoder",
            ("config.json", "model.safetensors", *TOKENIZER, "preprocessor_config.json"),
            "transformers",
            {"config.json", "model.safetensors", *TOKENIZER},
        ),
        (
            "faster_whisper.WhisperModel",
            ("model.bin", "config.json", "tokenizer.json", "vocabulary.json", "preprocessor_config.json", "model.safetensors"),
            "ctranslate2",
            {"model.bin", "config.json", "tokenizer.json", "vocabulary.json", "preprocessor_config.json"},
        ),
        (
            "open_clip.CLIP",
            ("open_clip_config.json", "open_clip_model.safetensors", "model.safetensors", *TOKENIZER),
            "open_clip",
            {"open_clip_config.json", "open_clip_model.safetensors", *TOKENIZER},
        ),
        (
            "peft.PeftModel",
            ("adapter_config.json", "adapter_model.safetensors", "model.safetensors", "optimizer.pt"),
            "adapter",
            {"adapter_config.json", "adapter_model.safetensors"},
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and "." in value else "",
)
def test_what_each_class_reads(taker: str, paths: tuple[str, ...], kind: str, taken: set[str]) -> None:
    found = plan(taker, *paths)
    assert (found.kind, set(found.files)) == (kind, taken)
    (part,) = found.components
    assert (part.name, part.precision) == ("", "fp16" if any(path.endswith(".safetensors") for path in taken) else None)


@pytest.mark.parametrize("paths", [("model.bin", "config.json"), ("vocabulary.json", "config.json"), ("vocabulary.txt",)])
def test_no_ctranslate2_model(paths: tuple[str, ...]) -> None:
    with pytest.raises(PlanError, match=r"expected model\.bin and vocabulary"):
        plan("ctranslate2.Translator", *paths)
