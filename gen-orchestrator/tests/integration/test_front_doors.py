"""The platform's front doors, called by the official clients of their protocols."""

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from mcp.client.client import Client as McpClient
from openai import OpenAI
from platform_process import PlatformProcess, write_project
from replicate.client import Client

CHAT = "local/probe/talk"


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlatformProcess]:
    folder = tmp_path_factory.mktemp("doors")
    started = PlatformProcess(write_project(folder / "probe"), folder / "data")
    yield started
    started.close()


@pytest.fixture(scope="module")
def client(platform: PlatformProcess) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{platform.url}/v1", api_key="none needed", max_retries=0) as found:
        yield found


def say(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


def test_chat_completions_are_runs(client: OpenAI, platform: PlatformProcess) -> None:
    answer = client.chat.completions.create(model=CHAT, messages=say("a red kite"))
    assert answer.choices[0].message.content == "aredkite"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (1, 3)
    run = platform.http.get(f"/v1/runs/{answer.id.removeprefix('chatcmpl-')}").json()
    assert run["status"] == "succeeded"
    assert run["usage"] == {"input_tokens": 1, "output_tokens": 3}
    chunks = list(client.chat.completions.create(model=f"{CHAT}:prod", messages=say("a red kite"), stream=True))
    assert [chunk.choices[0].delta.content for chunk in chunks] == ["", "a", "red", "kite", None]
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == 4
    assert [model.id for model in client.models.list()][-2:] == [CHAT, f"{CHAT}:dev"]
    assert client.models.retrieve(CHAT).id == CHAT


def test_refusals_have_the_form_of_the_api(client: OpenAI) -> None:
    for model, status, said in (
        ("talk", 404, f"Did you mean '{CHAT}'?"),
        ("local/probe/tlak", 404, "talk"),
        ("local/probe/echo", 400, "task='chat'"),
        (f"{CHAT}:nowhere", 404, "nowhere"),
    ):
        with pytest.raises(openai.APIStatusError) as caught:
            client.chat.completions.create(model=model, messages=say("x"))
        error: Any = caught.value.body
        assert caught.value.status_code == status, error
        assert said in error["message"], error


def test_a_client_that_goes_away_cancels_its_run(client: OpenAI, platform: PlatformProcess) -> None:
    stream = client.chat.completions.create(model=CHAT, messages=say("one wait"), stream=True)
    run_id = next(stream).id.removeprefix("chatcmpl-")
    stream.close()
    platform.until(lambda: platform.http.get(f"/v1/runs/{run_id}").json()["status"] == "canceled")


def test_files_go_both_ways(client: OpenAI) -> None:
    drawn = client.images.generate(model="local/probe/draw", prompt="a kite", size="64x64")  # type: ignore[call-overload]
    assert drawn.data is not None
    picture = httpx.get(str(drawn.data[0].url), trust_env=False)
    assert (picture.status_code, b"64x64 a kite" in picture.content) == (200, True)
    wav = ("a.wav", b"RIFF....WAVEone two", "audio/wav")
    assert client.audio.transcriptions.create(model="local/probe/hear", file=wav).text == "one two"
    assert client.audio.speech.create(model="local/probe/speak", input="hi", voice="ada").content == b"RIFF....WAVEada says hi at 1.0"
    assert client.embeddings.create(model="local/probe/embed", input="abc").data[0].embedding[0] == 3


def test_predictions_are_runs(platform: PlatformProcess) -> None:
    client = Client(api_token="none needed", base_url=platform.url)
    client.poll_interval = 0.02
    with client._client:
        use_predictions(client, platform)


def use_predictions(client: Client, platform: PlatformProcess) -> None:
    prediction = client.predictions.create(version="local/probe/draw", input={"prompt": "a kite"})
    prediction.wait()
    assert str(prediction.output[0]).startswith("data:image/png;base64,")
    assert prediction.input == {"prompt": "a kite"}
    assert platform.http.get(f"/v1/runs/{prediction.id}").json()["status"] == "succeeded"
    heard = client.predictions.create(version="local/probe/read", input={"image": "data:text/plain,hello"}, wait=True)
    assert heard.output["texts"] == ["hello"]
    words = client.predictions.create(version="local/probe/words:prod", input={"text": "a red kite"}, wait=True)
    assert words.output == ["a", "red", "kite"]
    slow = client.predictions.create(version="local/probe/sleep", input={"seconds": 60}, wait=1)
    assert slow.status == "starting"
    slow.cancel()
    assert slow.status == "canceled"
    asked = {"input": {"text": "once"}, "version": "local/probe/echo"}
    first, again = (platform.http.put("/predictions/mine", json=asked).json() for _ in range(2))
    assert first["output"]["text"] == "once"
    assert again["created_at"] == first["created_at"]
    refused = platform.http.post("/v1/models/local/probe/predictions", json={"input": {}})
    assert "several functions" in refused.json()["detail"]
    assert platform.http.post("/v1/models/local/probe/predictions?function=echo", json={"input": {}}).status_code == 201
    assert platform.http.get("/health-check").json()["status"] == "READY"


def test_functions_are_tools(platform: PlatformProcess) -> None:
    asyncio.run(use_tools(platform))


async def use_tools(platform: PlatformProcess) -> None:
    async with McpClient(f"{platform.url}/mcp") as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert tools["local__probe__draw"].title == "local/probe/draw"
        drawn = await client.call_tool("local__probe__draw", {"prompt": "a kite", "width": 8, "height": 8})
        link: Any = drawn.content[1]
        assert b"8x8 a kite" in httpx.get(str(link.uri), trust_env=False).content
        assert drawn.structured_content["images"][0]["mime_type"] == "image/png"
        assert (await client.call_tool("local__probe__refuse", {})).is_error
        newest = (await client.list_resources()).resources[0]
        assert newest.title == "refuse: failed"
        assert "text is empty" in (await client.read_resource(str(newest.uri))).contents[0].text  # type: ignore[union-attr]
