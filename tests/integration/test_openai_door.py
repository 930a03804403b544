"""The OpenAI API of the dev runner, called by the official client."""

import json
import socket
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI
from tests.conftest import Runner, write_project
from tests.openai_project import CODE


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    folder = tmp_path_factory.mktemp("openai")
    found = Runner(write_project(folder / "project", CODE), folder / "outputs")
    yield found
    assert found.stop() == 0


@pytest.fixture(scope="module")
def client(runner: Runner) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{runner.url}/v1", api_key="none needed", max_retries=0) as found:
        yield found


def say(*texts: str) -> list[Any]:
    return [{"role": "user", "content": text} for text in texts]


def test_a_chat_answers_whole(client: OpenAI) -> None:
    answer = client.chat.completions.create(model="chat", messages=say("hello", "a red kite"))
    (choice,) = answer.choices
    assert choice.message.role == "assistant"
    assert choice.message.content == "a red kite"
    assert choice.message.tool_calls is None
    assert choice.finish_reason == "stop"
    assert answer.model == "chat"
    assert answer.usage is not None
    assert answer.usage.model_dump(include={"prompt_tokens", "completion_tokens", "total_tokens"}) == {
        "prompt_tokens": 2,
        "completion_tokens": 3,
        "total_tokens": 5,
    }


def test_a_chat_streams_word_by_word(client: OpenAI, runner: Runner) -> None:
    chunks = list(client.chat.completions.create(model="chat", messages=say("a red kite"), stream=True))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].delta.content for chunk in chunks[1:-1]] == ["a", " red", " kite"]
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [*[None] * (len(chunks) - 1), "stop"]
    assert len({chunk.id for chunk in chunks}) == 1
    run_id = chunks[0].id.removeprefix("chatcmpl-")
    assert runner.http.get(f"/v1/runs/{run_id}").json()["usage"] == {"input_tokens": 1, "output_tokens": 3}
    asked = {"model": "chat", "messages": say("hi"), "stream": True, "stream_options": {"include_usage": True}}
    text = runner.http.post("/v1/chat/completions", json=asked).text
    assert text.endswith("data: [DONE]\n\n")
    *_, last = client.chat.completions.create(**asked)
    assert last.choices == []
    assert last.usage.total_tokens == 2


def test_parameters_reach_the_function(client: OpenAI) -> None:
    options: dict[str, Any] = {"stop": "end", "temperature": 0.25, "max_completion_tokens": 2, "user": "me", "n": 1, "logprobs": False}
    answer = client.chat.completions.create(model="chat", messages=say("one two three"), **options)
    assert answer.choices[0].message.content == "one two ['end'] 0.25"
    assert answer.choices[0].finish_reason == "length"
    parts = [{"type": "text", "text": "in"}, {"type": "text", "text": "parts"}]
    answer = client.chat.completions.create(model="brief", messages=[{"role": "user", "content": parts}, *say("more")])
    assert answer.choices[0].message.content == "2: in\nparts"
    assert answer.usage is not None
    assert answer.usage.total_tokens == 0, "a function that reports nothing"


def test_tool_calls_pass_through(client: OpenAI) -> None:
    tools: Any = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
    answer = client.chat.completions.create(model="chat", messages=say("in Oslo?"), tools=tools)
    assert answer.choices[0].finish_reason == "tool_calls"
    assert answer.choices[0].message.content is None
    (call,) = answer.choices[0].message.tool_calls or []
    assert (call.id, call.function.name, call.function.arguments) == ("call_7", "weather", '{"city": "Oslo"}')  # type: ignore[union-attr]
    with client.chat.completions.stream(model="chat", messages=say("in Oslo?"), tools=tools) as stream:
        streamed = stream.get_final_completion()
    assert streamed.choices[0].message.tool_calls[0].function.arguments == '{"city": "Oslo"}'  # type: ignore[index]
    two: Any = client.chat.completions.create(model="chat", messages=say("?"), tools=[*tools, *tools])
    assert [call.id for call in two.choices[0].message.tool_calls] == ["call_0", "call_1"]
    with client.chat.completions.stream(model="chat", messages=say("?"), tools=[*tools, *tools]) as stream:
        assert [call.id for call in stream.get_final_completion().choices[0].message.tool_calls or []] == ["call_0", "call_1"]
    conversation: Any = [
        *say("in Oslo?"),
        answer.choices[0].message.model_dump(),
        {"role": "tool", "tool_call_id": "call_7", "content": "rain"},
    ]
    assert client.chat.completions.create(model="chat", messages=conversation).choices[0].message.content == "rain"


def test_a_completion(client: OpenAI) -> None:
    answer = client.completions.create(model="go-on", prompt="on")
    assert answer.choices[0].text == "on and on"
    chunks = list(client.completions.create(model="go-on", prompt="on", stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks) == "on and on"
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_models_are_the_functions_with_a_task(client: OpenAI) -> None:
    assert {model.id for model in client.models.list()} == {"brief", "chat", "draw", "embed", "go-on", "hear", "hear-on", "speak"}
    assert client.models.retrieve("chat").owned_by == "local"
    answer = client.chat.completions.create(model="anyone/demo/chat:prod", messages=say("hi"))
    assert answer.choices[0].message.content == "hi"


@pytest.mark.parametrize(
    ("options", "status", "code", "param", "said"),
    [
        ({"model": "caht"}, 404, "not_found", None, "Did you mean 'chat'?"),
        ({"model": "plain"}, 400, "validation", None, "@worker_function(task='chat')"),
        ({"model": "go-on"}, 400, "validation", None, "its task is 'completion'"),
        ({"model": "chat", "messages": []}, 400, "validation", "messages", "length >= 1"),
        ({"model": "chat", "messages": say("break")}, 500, "internal", None, ""),
        ({"model": "chat", "messages": say("refuse")}, 400, "validation", None, "I take no such words"),
        ({"model": "chat", "messages": [{"role": "me", "content": "x"}]}, 400, "validation", "messages.0.role", "role"),
        ({"model": "brief", "temperature": 0.3}, 400, "validation", "temperature", "no such field"),
        ({"model": "chat", "n": 2}, 400, "validation", "n", "no such field"),
        ({"model": "chat", "extra_body": {"temprature": 1}}, 400, "validation", "temprature", "Did you mean 'temperature'?"),
        ({"model": "chat", "messages": "hi"}, 400, "validation", "messages", "expected a list of messages"),
    ],
)
def test_errors_have_the_form_of_the_api(
    client: OpenAI, options: dict[str, Any], status: int, code: str, param: str | None, said: str
) -> None:
    for stream in (False, True):
        with pytest.raises(openai.APIStatusError) as caught:
            client.chat.completions.create(**{"messages": say("hi"), **options}, stream=stream)
        error: Any = caught.value.body
        assert caught.value.status_code == status, error
        assert error["code"] == code
        assert error["param"] == param, error
        assert said in error["message"], error


def test_a_failure_in_the_middle_of_a_stream_is_its_last_event(client: OpenAI) -> None:
    stream = client.chat.completions.create(model="chat", messages=say("one now-break"), stream=True)
    assert [next(stream).choices[0].delta.content for _ in range(2)] == ["", "one"]
    with pytest.raises(openai.APIError, match="in the middle"):
        next(stream)


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_goes_away_cancels_the_run(runner: Runner, stream: bool) -> None:
    body = json.dumps({"model": "chat", "messages": say("one wait"), "stream": stream})
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n\r\n"

    def runs(status: str) -> int:
        return len(runner.http.get(f"/v1/runs?function=chat&status={status}").json()["data"])

    before = runs("canceled")
    with socket.create_connection((httpx.URL(runner.url).host, httpx.URL(runner.url).port or 0)) as client:
        client.sendall((head + body).encode())
        runner.until(lambda: runs("running") == 1)
    runner.until(lambda: runs("canceled") == before + 1)
