"""Embeddings, pictures and recordings by the official OpenAI client, in the dev runner."""

import base64
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI
from tests.conftest import Runner, write_project
from tests.openai_project import CODE

WAV = ("a.wav", b"RIFF....WAVEone two", "audio/wav")


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    folder = tmp_path_factory.mktemp("media")
    found = Runner(write_project(folder / "project", CODE), folder / "outputs")
    yield found
    assert found.stop() == 0


@pytest.fixture(scope="module")
def client(runner: Runner) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{runner.url}/v1", api_key="none needed", max_retries=0) as found:
        yield found


def test_embeddings_in_both_forms(client: OpenAI, runner: Runner) -> None:
    answer = client.embeddings.create(model="embed", input=["a", "two words"])  # the client asks for base64
    assert [[round(x, 4) for x in each.embedding] for each in answer.data] == [[1, 0.1, -2.5], [9, 0.1, -2.5]]
    assert answer.usage.total_tokens == 3
    assert client.embeddings.create(model="embed", input="a", encoding_format="float", dimensions=2).data[0].embedding == [1, 0.1]
    asked = {"model": "embed", "input": "a", "encoding_format": "base64"}
    raw = runner.http.post("/v1/embeddings", json=asked).json()["data"][0]["embedding"]
    assert base64.b64decode(raw)[:4] == b"\x00\x00\x80\x3f"
    for wrong in ([], [[1, 2]], {"a": 1}):
        assert runner.http.post("/v1/embeddings", json={**asked, "input": wrong}).json()["error"]["param"] == "input"


def test_pictures_in_both_forms(client: OpenAI) -> None:
    answer = client.images.generate(model="draw", prompt="a kite", n=2, size="512x256")  # type: ignore[call-overload]
    assert answer.data is not None
    found = [httpx.get(str(each.url), trust_env=False) for each in answer.data]
    assert [each.content for each in found] == [b"\x89PNG 512x256 a kite 0", b"\x89PNG 512x256 a kite 1"]
    answer = client.images.generate(model="draw", prompt="a kite", response_format="b64_json", quality="hd")
    assert answer.data is not None
    assert b"NonexNone a kite 0" in base64.b64decode(answer.data[0].b64_json or "")
    with pytest.raises(openai.BadRequestError, match="WIDTHxHEIGHT"):
        client.images.generate(model="draw", prompt="a kite", size="big")  # type: ignore[call-overload]


def test_transcriptions_in_every_form(client: OpenAI) -> None:
    hear: Any = client.audio.transcriptions.create
    assert hear(model="hear", file=WAV).text == "one two"
    assert hear(model="hear", file=WAV, response_format="text") == "one two\n"
    whole = hear(
        model="hear", file=WAV, response_format="verbose_json", language="en", temperature=0.5, timestamp_granularities=["segment"]
    )
    assert (whole.language, whole.duration, [each.text for each in whole.segments]) == ("en", 2.0, ["one", "two"])
    assert hear(model="hear", file=WAV, response_format="srt").startswith("1\n00:00:00,000 --> 00:00:00,500\none\n\n2\n")
    assert hear(model="hear", file=WAV, response_format="vtt").startswith("WEBVTT\n\n00:00:00.000 --> 00:00:00.500\none\n")
    assert hear(model="hear-on", file=WAV).text == "onetwo"
    events = list(hear(model="hear-on", file=WAV, stream=True))
    assert [event.type for event in events] == ["transcript.text.delta", "transcript.text.delta", "transcript.text.done"]
    assert events[-1].text == "onetwo"
    with pytest.raises(openai.BadRequestError, match="returned no segments"):
        hear(model="hear-on", file=WAV, response_format="srt")
    with pytest.raises(openai.NotFoundError, match="Did you mean 'hear'"):
        hear(model="haer", file=WAV)


def test_speech_is_the_recording(client: OpenAI) -> None:
    answer = client.audio.speech.create(model="speak", input="hello", voice="ada", speed=1.5, response_format="wav")
    assert answer.content == b"RIFF....WAVEada says hello at 1.5"
    assert answer.response.headers["content-type"] in ("audio/wav", "audio/x-wav")
    with client.audio.speech.with_streaming_response.create(model="speak", input="hello", voice="ada") as streamed:
        assert b"".join(streamed.iter_bytes()).startswith(b"RIFF")
