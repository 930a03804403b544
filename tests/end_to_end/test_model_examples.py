"""The examples with models of real size, run with models of the same classes and a few thousand random weights."""

import io
import wave
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI
from tests.blob_server import BlobServer
from tests.conftest import EXAMPLES, Runner
from tests.fake_hub import FakeHuggingFace, read_tree
from tests.tiny_models import tiny_chat_model, tiny_flux, tiny_sdxl, tiny_whisper

pytestmark = pytest.mark.torch
Start = Callable[..., Runner]
SMALL = {"width": 64, "height": 64, "num_inference_steps": 3}


@pytest.fixture(autouse=True)
def _needs() -> None:
    for name in ("torch", "diffusers", "transformers"):
        pytest.importorskip(name)


@pytest.fixture
def server() -> Iterator[BlobServer]:
    with BlobServer() as server:
        yield server


def pixels(answer: dict) -> list[int]:
    from PIL import Image

    assert answer["success"], answer
    return list(Image.open(answer["files"][0]["local_path"]).convert("L").tobytes())


def test_sd15_in_16_and_8_bits_from_one_download(start_runner: Start, server: BlobServer, tmp_path: Path) -> None:
    import diffusers
    import torch

    pipe = diffusers.StableDiffusionPipeline.from_pretrained(EXAMPLES / "models/digits-sd", dtype=torch.float16)
    pipe.save_pretrained(tmp_path / "half", variant="fp16")
    FakeHuggingFace(server, "stable-diffusion-v1-5/stable-diffusion-v1-5", read_tree(tmp_path / "half"))
    env = {"HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path / "hf"), "TENSORHUB_CACHE_DIR": str(tmp_path / "cache")}
    runner = start_runner(EXAMPLES / "sd15", env=env)
    wide = pixels(runner.run("generate", {"prompt": "seven", **SMALL}).json())
    fetched = server.sent_bytes
    narrow = pixels(runner.run("generate-fp8", {"prompt": "seven", **SMALL}).json())
    assert server.sent_bytes - fetched < 0.1 * fetched  # listings and headers, no weights
    assert wide != narrow
    assert sum(abs(a - b) for a, b in zip(wide, narrow, strict=True)) / len(wide) < 6
    sizes = runner.http.get("/v1/status").json()["model_cache"]
    assert len(sizes["vram_models"]) == 2
    refused = runner.run("generate", {"prompt": "seven", "width": 65})
    assert refused.status_code == 400
    assert "width" in refused.json()["safe_message"]


def test_sdxl_checkpoints_by_key(start_runner: Start, tmp_path: Path) -> None:
    folders = {key: tiny_sdxl(tmp_path / key, seed) for seed, key in enumerate(("base", "dreamshaper"))}
    models = [argument for key, folder in folders.items() for argument in ("--model", f"{key}={folder}")]
    runner = start_runner(EXAMPLES / "sdxl-checkpoints", *models)
    drawn = {}
    for key in folders:
        answer = runner.run("generate", {"prompt": "kite", "model": key, "width": 64, "height": 64}).json()
        drawn[key] = pixels(answer)
        assert answer["output"]["num_inference_steps"] == {"base": 30, "dreamshaper": 8}[key]
    assert drawn["base"] != drawn["dreamshaper"]
    refused = runner.run("generate", {"prompt": "kite", "model": "dreamshape"})
    assert refused.status_code == 400


def test_flux_schnell_draws_several(start_runner: Start, tmp_path: Path) -> None:
    runner = start_runner(EXAMPLES / "flux-schnell", "--model", f"flux={tiny_flux(tmp_path / 'flux')}")
    answer = runner.run("generate", {"prompt": "a fox", "num_images": 2, "width": 64, "height": 64}).json()
    assert answer["success"], answer
    assert len({file["sha256"] for file in answer["files"]}) == 2
    progress = [event["payload"]["progress"] for event in answer["events"] if event["event_type"] == "job.progress"]
    assert progress == [0.25, 0.5, 0.75, 1.0]


def test_llm_chat_streams_and_is_canceled(start_runner: Start, tmp_path: Path) -> None:
    runner = start_runner(EXAMPLES / "llm-chat", "--model", f"chat={tiny_chat_model(tmp_path / 'chat')}")
    payload = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 20, "temperature": 0}
    answers = [runner.run("chat", payload).json() for _ in range(2)]
    texts = ["".join(event["payload"]["content"] for event in a["events"] if event["event_type"] == "output.delta") for a in answers]
    assert answers[0]["success"], answers[0]
    assert texts[0] == texts[1] != ""
    logged = [event["payload"]["message"] for event in answers[0]["events"] if event["event_type"] == "job.log"]
    assert " written, " in logged[-1]
    with OpenAI(base_url=f"{runner.url}/v1", api_key="none needed", max_retries=0) as client:
        told: Any = client.chat.completions.create(model="chat", **payload)
        assert told.choices[0].message.content == texts[0]
        assert told.usage.prompt_tokens > 0
        assert 0 < told.usage.completion_tokens <= 20
        *chunks, last = client.chat.completions.create(model="chat", stream=True, **payload)  # type: ignore[call-overload]
        assert "".join(chunk.choices[0].delta.content for chunk in chunks) == texts[0]
        assert last.choices[0].finish_reason == told.choices[0].finish_reason
    too_long = runner.run("chat", {"messages": [{"role": "user", "content": "x" * 600}]})
    assert too_long.status_code == 400
    assert "the model reads 512" in too_long.json()["safe_message"]
    bad_role = runner.run("chat", {"messages": [{"role": "robot", "content": "x"}]})
    assert bad_role.status_code == 400
    assert "robot" in bad_role.text


def test_whisper_writes_segments_with_times(start_runner: Start, tmp_path: Path) -> None:
    pytest.importorskip("av")
    runner = start_runner(EXAMPLES / "whisper", "--model", f"whisper={tiny_whisper(tmp_path / 'whisper')}")

    def hear(sound: bytes, **fields: str) -> tuple[int, dict]:
        response = runner.http.post("/v1/run/transcribe", files={"file": ("talk.wav", sound)}, data=fields)
        return response.status_code, response.json()

    for seconds, rate, channels in ((2, 16_000, 1), (41, 22_050, 2)):
        status, answer = hear(tone(seconds, rate, channels), language="en")
        assert status == 200, answer
        assert answer["output"]["duration"] == pytest.approx(seconds, abs=0.1)
        assert all(part["start"] <= part["end"] for part in answer["output"]["segments"])
    for sound, fields, reason in (
        (b"", {}, "the file is empty (0 bytes)"),
        (tone(0, 16_000, 1), {}, "the recording has no sound in it: 44 bytes, no samples"),
        (b"no sound at all", {}, "cannot be read as audio"),
        (tone(1, 16_000, 1), {"language": "klingon"}, "'klingon' is not one that the model knows"),
    ):
        status, answer = hear(sound, **fields)
        assert status == 400, answer
        assert reason in answer["safe_message"]
    with OpenAI(base_url=f"{runner.url}/v1", api_key="none needed", max_retries=0) as client:
        told = client.audio.transcriptions.create(model="transcribe", file=("talk.wav", tone(2, 16_000, 1)), response_format="verbose_json")
        assert (told.duration, told.language) in ((2.0, "en"), (2.0, "de"))  # it was not told, and knows these two


def tone(seconds: int, rate: int, channels: int) -> bytes:
    """A WAV file."""
    import numpy as np

    wave_form = (np.sin(2 * np.pi * 440 * np.arange(seconds * rate) / rate) * 8000).astype("<i2")
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(channels)
        out.setsampwidth(2)
        out.setframerate(rate)
        out.writeframes(np.repeat(wave_form, channels).tobytes())
    return file.getvalue()
