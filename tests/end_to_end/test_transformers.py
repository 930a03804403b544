"""Injected transformers models, tokenizers and processors, with the text encoder of the digits pipeline."""

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.conftest import EXAMPLES, Runner

CODE = """
import torch
from transformers import AutoTokenizer, CLIPTextModel

class In(msgspec.Struct):
    prompt: str

class Out(msgspec.Struct):
    shape: list[int]
    ids: list[int]
    trained: bool
    device: str

@worker_function
def encode(
    ctx: ActionContext,
    model: Annotated[CLIPTextModel, ModelRef(ModelRefSource.FIXED, "encoder")],
    tokenizer: Annotated[AutoTokenizer, ModelRef(ModelRefSource.FIXED, "tokenizer")],
    payload: In,
) -> Out:
    batch = tokenizer(payload.prompt, return_tensors="pt")
    with torch.inference_mode():
        states = model(batch.input_ids.to(ctx.device)).last_hidden_state
    return Out(list(states.shape), batch.input_ids[0].tolist(), not model.training, str(model.device))
"""
COZY = '[models]\nencoder = { ref = "hf:demo/encoder", dtypes = ["fp32"] }\ntokenizer = "hf:demo/tokenizer"\n'


@pytest.mark.torch
def test_a_model_and_its_tokenizer(project: Callable[..., Path], start_runner: Callable[..., Runner]) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    digits = EXAMPLES / "models/digits-sd"
    folder = project(CODE, COZY)
    runner = start_runner(
        folder,
        "--model",
        f"encoder={digits / 'text_encoder'}",
        "--model",
        f"tokenizer={digits / 'tokenizer'}",
        env={"WORKER_DEVICE": "cpu"},
    )
    seven = runner.run("encode", {"prompt": "seven"}).json()["output"]
    assert seven["shape"] == [1, 3, 64]  # start, the word as one token, end
    assert seven["trained"] is True
    assert seven["device"] == "cpu"
    assert seven["ids"] != runner.run("encode", {"prompt": "three"}).json()["output"]["ids"]
    cache = runner.http.get("/v1/models/status").json()["model_cache"]
    assert set(cache["vram_models"]) == {"hf:demo/encoder#CLIPTextModel", "hf:demo/tokenizer#AutoTokenizer"}


@pytest.mark.torch
def test_pickled_weights_are_refused(project: Callable[..., Path], start_runner: Callable[..., Runner], tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("transformers")
    (tmp_path / "pickled").mkdir()
    (tmp_path / "pickled/config.json").write_bytes((EXAMPLES / "models/digits-sd/text_encoder/config.json").read_bytes())
    torch.save({}, tmp_path / "pickled/pytorch_model.bin")
    tokenizer = EXAMPLES / "models/digits-sd/tokenizer"
    runner = start_runner(project(CODE, COZY), "--model", f"encoder={tmp_path / 'pickled'}", "--model", f"tokenizer={tokenizer}")
    response = runner.run("encode", {"prompt": "seven"})
    assert response.status_code == 500
    assert "pytorch_model.bin is a pickle" in response.json()["error_message"]
