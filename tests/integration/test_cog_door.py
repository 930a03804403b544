"""Predictions in the dev runner, requested by the official replicate client and like cog's own clients."""

import base64
import io
from collections.abc import Iterator
from typing import Any

import pytest
from replicate.client import Client
from replicate.exceptions import ModelError, ReplicateError
from replicate.helpers import FileOutput
from tests.conftest import Runner, write_project
from tests.runner_project import CODE


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    folder = tmp_path_factory.mktemp("cog")
    more = """
class Picture(msgspec.Struct):
    image: Asset

@worker_function()
def draw(ctx: ActionContext, payload: In) -> Picture:
    ctx.log("10%|#   | 1/10")
    return Picture(ctx.save_bytes(f"runs/{ctx.run_id}/outputs/a.png", b"\\x89PNG" + payload.prompt.encode()))

@worker_function()
def fail(ctx: ActionContext, payload: In) -> Out:
    raise RuntimeError("no device")
"""
    found = Runner(write_project(folder / "project", CODE + more), folder / "outputs")
    yield found
    assert found.stop() == 0


@pytest.fixture(scope="module")
def client(runner: Runner) -> Iterator[Client]:
    found = Client(api_token="none needed", base_url=runner.url)
    found.poll_interval = 0.02
    yield found
    found._client.close()


def test_a_prediction_is_made_and_waited_for(client: Client) -> None:
    prediction = client.predictions.create(version="echo", input={"prompt": "a kite"})
    prediction.wait()
    assert (prediction.status, prediction.output, prediction.error) == ("succeeded", "a kite", None)
    assert prediction.completed_at
    again = client.predictions.get(prediction.id)
    assert again.output == "a kite"
    assert again.metrics is not None
    waited = client.predictions.create(version="local/demo/echo", input={"prompt": "x"}, wait=True)
    assert (waited.status, waited.input) == ("succeeded", {"prompt": "x"})


def test_streams_are_lists_and_logs_are_texts(client: Client) -> None:
    prediction = client.predictions.create(version="words", input={"prompt": "a red kite"}, wait=True)
    assert prediction.output == ["a", "red", "kite"]
    assert client.predictions.create(version="draw", input={"prompt": "x"}, wait=True).progress.percentage == 0.1  # type: ignore[union-attr]


def test_files_go_both_ways(client: Client, runner: Runner) -> None:
    drawn = client.predictions.create(version="draw", input={"prompt": "kite"}, wait=True)
    assert base64.b64decode(str(drawn.output).partition(",")[2]) == b"\x89PNGkite"
    assert str(drawn.output).startswith("data:image/png;base64,")
    output = FileOutput(str(drawn.output), client)
    assert output.read() == b"\x89PNGkite"
    sent = client.predictions.create(
        version="look", input={"image": io.BytesIO(b"RIFF....WAVE sound")}, wait=True, file_encoding_strategy="base64"
    )
    assert str(sent.output).endswith("ound")
    several = runner.http.post("/predictions?function=look", json={"input": {"images": [drawn.output, "data:,four"]}}).json()
    assert several["output"].endswith("four")


def test_failures(client: Client, runner: Runner) -> None:
    failed = client.predictions.create(version="fail", input={}, wait=True)
    assert failed.status == "failed"
    assert ModelError(failed)
    with pytest.raises(ReplicateError, match="Did you mean 'echo'"):
        client.predictions.create(version="ehco", input={})
    several = runner.http.post("/predictions", json={"input": {}})
    assert several.status_code == 400
    assert "?function=NAME" in several.json()["detail"]
    wrong = runner.http.post("/predictions?function=echo", json={"input": {"n": "many"}})
    assert wrong.status_code == 422
    assert wrong.json()["errors"][0]["pointer"] == "/n"
    assert runner.http.get("/predictions/nothing").status_code == 404
    assert runner.http.get("/health-check").json()["status"] == "READY"


def test_an_id_runs_once(runner: Runner) -> None:
    asked = {"input": {"prompt": "once"}}
    first = runner.http.put("/predictions/mine?function=echo", json=asked).json()
    assert (first["id"], first["status"], first["output"]) == ("mine", "succeeded", "once")
    assert runner.http.put("/predictions/mine?function=echo", json=asked).json()["created_at"] == first["created_at"]
    assert runner.http.get("/predictions/mine").json()["output"] == "once"


def test_a_prediction_is_canceled(client: Client, runner: Runner) -> None:
    prediction = client.predictions.create(version="nap", input={"seconds": 60})
    prediction.cancel()
    prediction.wait()
    assert prediction.status == "canceled"
    later: Any = runner.http.post("/predictions?function=nap", json={"input": {"seconds": 60}}, headers={"prefer": "respond-async"})
    assert (later.status_code, later.json()["status"] in ("starting", "processing")) == (202, True)
    ended = runner.http.post(f"/predictions/{later.json()['id']}/cancel").json()
    assert ended["status"] == "canceled"
