"""The whole plan for each class of repositories of every kind, from the table in `file_plans.txt`.

A line `@ name: files` is a repository; below it stands, for each plan, which classes get it:

    kind [folder precision: files; folder precision: files] without files   <= classes

`.` is the repository's root, `-` no precision. A line that begins with `!` is the error. `(none)`: nobody says which class it is for.
"""

from pathlib import Path
from typing import Any

import pytest

from gen_worker.sources.file_plan import FilePlan, Knowledge, Needs, PlanError, SelectionPolicy, plan_files

DOCUMENTS: dict[str, Any] = {
    "model_index.json": {"_class_name": "X", "unet": ["diffusers", "UNet2DConditionModel"], "scheduler": ["diffusers", "DDIMScheduler"]},
    "modules.json": [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ],
}


def text_of(plan: FilePlan) -> str:
    parts = "; ".join(f"{part.name or '.'} {part.precision or '-'}: {' '.join(part.files)}".rstrip() for part in plan.components)
    return f"{plan.kind} [{parts}]" + (f" without {' '.join(plan.left_out)}" if plan.left_out else "")


def plan_of(files: str, *, sizes: dict[str, int] | None = None, precision: str | None = "fp16", **how: Any) -> str:
    """The plan of a repository, or its error, as the table writes it."""
    every = dict.fromkeys(files.split(), 10) | (sizes or {})
    documents: dict[str, Any] = {}
    precisions: dict[str, str | None] = {}
    try:
        while isinstance(found := plan_files(Knowledge(every, documents, precisions), SelectionPolicy(**how)), Needs):
            documents |= {path: DOCUMENTS.get(path, {}) for path in found.documents}
            precisions |= dict.fromkeys(found.headers, precision)
    except PlanError as exc:
        return f"! {exc}"
    return text_of(found)


def table() -> list[Any]:
    repositories: dict[str, tuple[str, list[str]]] = {}
    for line in Path(__file__).with_name("file_plans.txt").read_text().splitlines():
        if line.startswith("@ "):
            name, _, files = line[2:].partition(": ")
            repositories[name] = (files, [])
        elif line.strip():
            repositories[name][1].append(line.strip())
    return [pytest.param(files, lines, id=name) for name, (files, lines) in repositories.items()]


@pytest.mark.parametrize(("files", "lines"), table())
def test_plans(files: str, lines: list[str]) -> None:
    for line in lines:
        expected, _, classes = line.partition(" <= ")
        for taker in classes.split():
            found = plan_of(files, takers=() if taker == "(none)" else (taker,))
            assert found == expected.strip(), taker


SUPPORT = (
    "config.json model.safetensors pytorch_model.bin.index.json onnx/a.json openvino/a.json coreml/a.json flax/a.json tf/a.json "
    "original/a.json runs/a.json .git/a.json .hidden.json sub/a.json big.json small.json a.py"
)


def test_what_is_taken_beside_the_weights() -> None:
    limit = 64 << 20
    found = plan_of(SUPPORT, sizes={"big.json": limit + 1, "small.json": limit})
    assert found == "transformers [. fp16: config.json model.safetensors small.json sub/a.json]"


def test_several_classes_get_one_plan() -> None:
    files = "config.json model.safetensors pytorch_model.bin tokenizer.json m.F16.gguf"
    takers = ("transformers.AutoTokenizer", "transformers.AutoModel", "llama_cpp.Llama")
    assert plan_of(files, takers=takers) == (
        "tokenizer+transformers+gguf [. fp16: config.json tokenizer.json model.safetensors m.F16.gguf] without pytorch_model.bin"
    )
    assert plan_of(files, takers=("transformers.AutoModel", "timm.Model")) == (
        "transformers [. fp16: config.json model.safetensors] without pytorch_model.bin"
    )


def test_everything_but_git() -> None:
    assert plan_of("b.bin a.py .git/x .gitattributes .other", full_repo=True) == "everything [. -: .other a.py b.bin]"


def test_how_large_a_model_may_be() -> None:
    files, sizes = "config.json model.safetensors", {"config.json": 1_000_000_000, "model.safetensors": 2_000_000_000}
    assert plan_of(files, sizes=sizes, max_bytes=3_000_000_000) == "transformers [. fp16: config.json model.safetensors]"
    assert plan_of(files, sizes=sizes, max_bytes=2_999_999_999) == (
        "! excessively large: 3.0 GB in 2 files, more than 3 GB; raise COZY_HF_MAX_GB if that is what you want"
    )


FOLDERS = (
    "a/config.json a/code.py a/half.safetensors a/m.onnx a/m.onnx_data a/m.onnx.data a/q.gguf a/x.bin b/w.safetensors ab/config.json r.json"
)


def test_folders_that_are_named() -> None:
    assert plan_of(FOLDERS, components=("a", "b")) == (
        "folders [a -: a/config.json a/half.safetensors a/m.onnx a/m.onnx.data a/m.onnx_data a/q.gguf; b -: b/w.safetensors]"
    )
    assert plan_of(FOLDERS, components=("b",), precision=None) == "folders [b -: b/w.safetensors]"
    assert plan_of(FOLDERS, components=("b",), precision="fp32") == "folders [b -:]"
    limit = 64 << 20
    assert plan_of(FOLDERS, components=("ab",), sizes={"ab/config.json": limit}) == "folders [ab -: ab/config.json]"
    assert plan_of(FOLDERS, components=("ab",), sizes={"ab/config.json": limit + 1}) == "folders [ab -:]"
    assert plan_of(FOLDERS, components=("c",)) == "! COZY_HF_COMPONENTS names 'c', which is not in the repository; it has a, ab, b"
    assert plan_of("a.txt", components=("c",)) == "! COZY_HF_COMPONENTS names 'c', which is not in the repository; it has no folders"


def test_what_must_be_known_first() -> None:
    sizes = dict.fromkeys(FOLDERS.split(), 10)
    assert plan_files(Knowledge(sizes), SelectionPolicy(components=("a",))) == Needs(headers=("a/half.safetensors",))
    both = {"modules.json": 1, "model.safetensors": 1, "config.json": 1}
    assert plan_files(Knowledge(both), SelectionPolicy()) == Needs(documents=("modules.json",))


def test_weights_in_many_folders() -> None:
    files = " ".join(f"f{number}/in/w.safetensors" for number in range(9))
    assert plan_of(files) == (
        "! its weights are in folders (f0/in, f1/in, f2/in, f3/in, f4/in, f5/in), and nothing says which belong together. Name the folders in "
        "COZY_HF_COMPONENTS"
    )


@pytest.mark.parametrize("folder", ["transformer", "unet"])
def test_a_pipeline_without_an_index(folder: str) -> None:
    files = f"{folder}/config.json {folder}/diffusion_pytorch_model.safetensors config.json"
    assert plan_of(files) == f"diffusers [. -:; {folder} fp16: {folder}/config.json {folder}/diffusion_pytorch_model.safetensors]"
