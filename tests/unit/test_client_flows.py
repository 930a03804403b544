"""The client's decisions, without a socket: flows are asked for their effects, and get the results."""

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from gen_worker.client import GatewayError, Patience, UnreachableError
from gen_worker.client.calls import call_of
from gen_worker.client.effects import Answer, Close, Flow, Give, LostError, Open, Pause, Read, Send
from gen_worker.client.flows import Begun, Flows
from gen_worker.client.following import call_events, items, whole_result

RUN = {"id": "r1", "status": "running"}


def answer(status: int, body: Any, **headers: str) -> Answer:
    return Answer(status, {"content-type": "application/json", **headers}, json.dumps(body).encode())


def drive(flow: Flow[Any], replies: list[Any]) -> tuple[Any, list[Any]]:
    """Tell the flow these replies in turn; its result, and the effects that it asked for. Pauses and closes need none."""
    asked: list[Any] = []
    reply: Any = None
    step: Callable[[Any], Any] = flow.send
    try:
        while True:
            effect = step(reply)
            asked.append(effect)
            step, reply = flow.send, None
            if isinstance(effect, (Send, Open, Read)):
                reply = replies.pop(0) if len(replies) > 1 else replies[0]
                if isinstance(reply, Exception):
                    step = flow.throw
    except StopIteration as stop:
        return stop.value, asked
    except UnreachableError as error:
        return error, asked


def flows() -> Flows:
    return Flows({}, Patience())


def begun() -> Begun:
    return Begun(call_of("me/e/f", {"a": 1}, {}))


@pytest.mark.parametrize(
    ("lost", "sends"),
    [
        (LostError("refused", sent=False), 5),  # nobody there: said after a second
        (LostError("broke", sent=True), 20),  # it may have the run: waited for, about a minute
        (LostError("silent", sent=True, silent=True), 3),  # each of them took most of a minute by itself
    ],
)
def test_how_long_a_server_is_waited_for(lost: LostError, sends: int) -> None:
    error, asked = drive(flows().create(begun(), wait_s=20), [lost])
    assert isinstance(error, UnreachableError)
    assert sum(isinstance(effect, Send) for effect in asked) == sends
    pauses = [effect.seconds for effect in asked if isinstance(effect, Pause)]
    assert sum(pauses) <= 75
    assert max(pauses) <= 5


STARTING = {"code": "not_ready", "error": "starting", "detail": "the platform is starting", "title": "Service Unavailable"}


@pytest.mark.parametrize(("headers", "sends"), [({"retry-after": "1"}, 20), ({"retry-after": "0"}, 20), ({}, 20)])
def test_a_server_that_is_starting_is_waited_for_also_without_a_key(headers: dict[str, str], sends: int) -> None:
    unkeyed = Begun(call_of("me/e/f", {"a": 1}, {"idempotency_key": ""}))
    state, asked = drive(flows().create(unkeyed, wait_s=20), [answer(503, STARTING, **headers)] * sends + [answer(202, RUN)])
    assert state.run.id == "r1"
    assert sum(isinstance(effect, Send) for effect in asked) == sends + 1
    assert all(effect.seconds >= 0.1 for effect in asked if isinstance(effect, Pause))


@pytest.mark.parametrize("retry_after", ["0", "1", "3600"])
def test_a_server_that_never_has_started_is_given_up(retry_after: str) -> None:
    patience = Patience(starting_s=10)
    pauses: list[float] = []
    with pytest.raises(GatewayError, match="is starting"):
        drive(
            Flows({}, msgspec.structs.replace(patience, on_pause=lambda seconds, _: pauses.append(seconds))).create(begun(), wait_s=20),
            [answer(503, STARTING, **{"retry-after": retry_after})],
        )
    assert sum(pauses) <= 10
    assert bool(pauses) is (retry_after != "3600")


def test_a_run_is_made_once_and_polled_to_its_end() -> None:
    made = flows()
    state, asked = drive(made.create(begun(), wait_s=20), [answer(202, RUN)])
    assert [(effect.request.method, effect.request.path) for effect in asked] == [("POST", "/v1/me/e/f")]
    assert asked[0].request.headers["prefer"] == "respond-async, wait=20"
    done = {**RUN, "status": "succeeded", "output": {"x": 1}}
    state, asked = drive(whole_result(made, state), [answer(200, RUN), answer(200, done)])
    assert [effect.request.path for effect in asked] == ["/v1/runs/r1?wait=20"] * 2
    assert state.output == b'{"x": 1}'


def test_a_dev_runner_is_found_once() -> None:
    made = flows()
    nothing = answer(404, {"code": "not_found", "detail": "there is nothing at /v1/me/e/f", "title": "Not Found"})
    _, asked = drive(made.create(begun(), wait_s=0), [nothing, answer(202, RUN)])
    assert [effect.request.path for effect in asked] == ["/v1/me/e/f", "/v1/run/f"]
    assert json.loads(asked[1].request.content) == {"payload": {"a": 1}, "cancel_on_disconnect": False}
    _, asked = drive(made.create(begun(), wait_s=0), [answer(202, RUN)])
    assert [effect.request.path for effect in asked] == ["/v1/run/f"]


def test_whoever_leaves_before_the_answer_learns_the_id_by_its_key() -> None:
    made, left = flows(), begun()
    assert drive(made.cancel(left), [answer(500, {})]) == (None, [])  # nothing was sent
    left.sent = True
    state, asked = drive(made.cancel(left), [answer(202, RUN), answer(200, {**RUN, "status": "canceled"})])
    assert [effect.request.path for effect in asked] == ["/v1/me/e/f", "/v1/runs/r1/cancel"]
    assert asked[0].request.headers["idempotency-key"] == left.call.key
    assert state.run.status == "canceled"


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_a_stream_cut_into_pieces_of_any_size_gives_the_same_items(size: int) -> None:
    lines = [{"event": "status", "data": {}}, *({"id": f"1-{n}", "event": "output", "data": "ä" * n} for n in range(1, 6))]
    text = (
        "\n\n".join(json.dumps(line, ensure_ascii=False) for line in [*lines, {"event": "done", "data": {**RUN, "status": "succeeded"}}])
        + "\n"
    )
    data = text.encode()
    head = Answer(200, {"content-type": "application/x-ndjson", "x-run-id": "r1"})
    made = begun()
    state, asked = drive(items(call_events(flows(), made)), [head, *(data[at : at + size] for at in range(0, len(data), size)), b""])
    assert [bytes(effect.value).decode() for effect in asked if isinstance(effect, Give)] == [
        json.dumps("ä" * n, ensure_ascii=False) for n in range(1, 6)
    ]
    assert (state.run.status, made.run_id) == ("succeeded", "r1")
    assert isinstance(asked[-1], Close)
