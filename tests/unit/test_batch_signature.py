"""What a batch function must look like."""

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from gen_worker import ActionContext, Batch, worker_function
from gen_worker.authoring.signature import SignatureError, read_signature


class In(msgspec.Struct):
    prompt: str


class Out(msgspec.Struct):
    text: str


def test_items_are_what_callers_see() -> None:
    @worker_function(batch=Batch(max_size=3))
    def good(ctx: ActionContext, payloads: list[In]) -> list[Out]:
        return []

    spec = read_signature(good)
    assert (spec.payload_type, spec.output_type, spec.output_mode, spec.payload_param) == (In, Out, "single", "payloads")
    assert spec.batch == Batch(max_size=3)


def test_exceptions_may_stand_among_the_outputs() -> None:
    @worker_function(batch=Batch())
    async def good(ctx: ActionContext, payloads: list[In]) -> list[Out | Exception]:
        return []

    assert read_signature(good).output_type is Out


def one_payload(ctx: ActionContext, payload: In) -> list[Out]:
    return []


def one_output(ctx: ActionContext, payloads: list[In]) -> Out:
    return Out("")


def stream(ctx: ActionContext, payloads: list[In]) -> Iterator[Out]:
    yield Out("")


def of_text(ctx: ActionContext, payloads: list[str]) -> list[Out]:
    return []


def mixed(ctx: ActionContext, payloads: list[In]) -> list[Out | str]:
    return []


@pytest.mark.parametrize("function", [one_payload, one_output, stream, of_text, mixed])
def test_other_shapes_are_refused_with_the_right_one(function: Any) -> None:
    with pytest.raises(SignatureError, match=r"payloads: list\[Input\]\) -> list\[Output\]"):
        read_signature(worker_function(batch=Batch())(function))


@pytest.mark.parametrize("settings", [{"max_size": 0}, {"max_size": True}, {"max_size": 1.5}, {"max_wait_ms": -1}, {"parallel": 65}])
def test_settings_are_checked(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        Batch(**settings)


def test_batch_takes_a_batch() -> None:
    with pytest.raises(TypeError, match=r"batch=Batch\(\.\.\.\)"):
        worker_function(batch=16)  # type: ignore[call-overload]
