"""Functions that declare a task: which fit, and the errors for those that do not."""

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from gen_worker import ActionContext, tasks, worker_function
from gen_worker.authoring.signature import SignatureError, read_signature
from gen_worker.authoring.task_names import TASKS
from gen_worker.authoring.tasks import SHAPES
from gen_worker.project.manifest import function_entry


class Own(msgspec.Struct):
    messages: list[tasks.ChatMessage]
    style: str = ""


class Said(msgspec.Struct):
    content: str


class Row(msgspec.Struct, array_like=True):
    content: str


class Wrong(msgspec.Struct):
    mesages: list[str] = []
    text: str = ""


class Sure(tasks.ChatInput, kw_only=True):
    style: str


def function(payload: Any, output: Any) -> Any:
    def talk(ctx, payload):  # type: ignore[no-untyped-def]
        raise NotImplementedError

    talk.__annotations__ = {"ctx": ActionContext, "payload": payload, "return": output}
    return talk


@pytest.mark.parametrize("task", TASKS)
def test_the_structs_of_a_task_fit_it(task: str) -> None:
    shape = SHAPES[task]
    payload, output = (getattr(tasks, name) for name in shape.structs)
    spec = read_signature(worker_function(task=task)(function(payload, output)))  # type: ignore[arg-type]
    assert spec.task == task
    assert function_entry(spec, {}, {}).task == task
    if shape.streams:
        assert read_signature(worker_function(task=task)(function(payload, Iterator[output]))).output_mode == "incremental"  # type: ignore[arg-type,valid-type]


def test_structs_of_ones_own_fit_by_their_names() -> None:
    assert read_signature(worker_function(task="chat")(function(Own, Said))).task == "chat"
    entry = function_entry(read_signature(worker_function()(function(Own, Said))), {}, {})
    assert b'"task"' not in msgspec.json.encode(entry)


@pytest.mark.parametrize(
    ("task", "payload", "output", "said"),
    [
        ("chat", Wrong, Wrong, ["Wrong has no field 'messages' and Wrong has no field 'content'", "gen_worker.tasks.ChatInput"]),
        ("chat", Sure, Said, ["may leave out style of Sure", "give style a default"]),
        ("chat", Own, Row, ["Row is a list in JSON"]),
        ("speech", tasks.SpeechInput, Iterator[tasks.SpeechOutput], ["but this function streams", "return one SpeechOutput"]),
    ],
)
def test_what_is_missing_is_named(task: Any, payload: Any, output: Any, said: list[str]) -> None:
    with pytest.raises(SignatureError) as caught:
        read_signature(worker_function(task=task)(function(payload, output)))
    for each in said:
        assert each in str(caught.value)


def test_an_unknown_task_is_named_at_once() -> None:
    with pytest.raises(ValueError, match=r"task='chatt'. Did you mean 'chat'\? Expected one of: chat, completion"):
        worker_function(task="chatt")  # type: ignore[call-overload]


def test_tokens_add_up() -> None:
    ctx = ActionContext("run")
    assert ctx.usage is None
    ctx.report_usage(input_tokens=5)
    ctx.report_usage(output_tokens=2)
    ctx.report_usage(output_tokens=1)
    assert ctx.usage == (5, 3)
    with pytest.raises(ValueError, match="from 0 up"):
        ctx.report_usage(output_tokens=-1)
    with pytest.raises(TypeError):
        ctx.report_usage(output_tokens=1.5)  # type: ignore[arg-type]
