"""Servers that refuse temporarily, at every request on the way to a model: all are retried in the same way."""

import hashlib
import json
import random
import struct
import threading
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from pathlib import Path

import pytest
from tests.blob_server import BlobServer, Exchange, Route
from tests.fake_hub import FakeCozyHub, FakeHuggingFace

from gen_worker.content.progress import Progress
from gen_worker.errors import FatalError, RetryableError
from gen_worker.net.retry import Retries, RetryPolicy, Wait
from gen_worker.net.wanted import DownloadCanceledError
from gen_worker.refs import ModelSpec
from gen_worker.settings import ModelSettings
from gen_worker.sources.build import build_sources
from gen_worker.sources.hf_hub import until_cancelled
from gen_worker.sources.source import LocalModel, ModelWant


def weights(size: int = 64) -> bytes:
    header = json.dumps({"w": {"dtype": "F16", "shape": [size], "data_offsets": [0, size * 2]}}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(size * 2)


FILES = {"config.json": b'{"a": 1}', "tokenizer.json": b'{"b": 2}', "model.safetensors": weights(100_000)}


@pytest.fixture
def server() -> Iterator[BlobServer]:
    with BlobServer() as server:
        yield server


class Refusing:
    """Answer the first `times` requests whose path holds `part` with a refusal."""

    def __init__(self, server: BlobServer, part: str, times: int, status: int, headers: dict[str, str]) -> None:
        self.asked = 0
        self._left = times
        self._part, self._status, self._headers = part, status, headers
        server.routes = {prefix: self._before(route) for prefix, route in server.routes.items()}

    def _before(self, route: Route) -> Route:
        def answer(exchange: Exchange) -> None:
            if self._part in exchange.path:
                self.asked += 1
                if self._left:
                    self._left -= 1
                    exchange.reply(self._status, {"error": "slow down"}, self._headers)
                    return
            route(exchange)

        return answer


class Machine:
    """A cache of its own, and the pauses that would have been."""

    def __init__(self, server: BlobServer, folder: Path, sleep: Callable[[Wait, float], bool] | None = None) -> None:
        self.slept: list[float] = []
        self._sleep = sleep or (lambda wait, seconds: self.slept.append(seconds) or wait(0.0))
        self._env = {
            "TENSORHUB_CACHE_DIR": str(folder / "cache"),
            "HF_HOME": str(folder / "hf"),
            "HF_ENDPOINT": server.url,
            "WORKER_MIN_FREE_DISK_GB": "0.01",
        }

    def get(self, ref: str = "hf:demo/m", cancel: threading.Event | None = None, takers: tuple[str, ...] = (), **env: str) -> LocalModel:
        retries = Retries(RetryPolicy(), sleep=self._sleep, rng=random.Random(1))
        found = build_sources(ModelSettings.from_env({**self._env, **env}), {}, retries=retries)
        want = ModelWant("m", ModelSpec(ref), takers=takers)
        return found.source.present(want) or found.source.fetch(want, Progress("m"), cancel or threading.Event())


@pytest.mark.parametrize("part", ["/api/models", "/resolve/", "config.json", "model.safetensors"])
@pytest.mark.parametrize(
    ("status", "headers", "expected"),
    [
        (503, {}, (0.1, 0.2)),
        (500, {}, (0.1, 0.2)),
        (429, {"retry-after": "20"}, (20.0, 21.0)),
        (429, {"ratelimit": '"api";r=0;t=120', "ratelimit-policy": '"fixed window";"api";q=500;w=300'}, (120.0, 121.0)),
    ],
)
def test_one_refusal_on_the_way(
    server: BlobServer, tmp_path: Path, part: str, status: int, headers: dict[str, str], expected: tuple[float, float]
) -> None:
    FakeHuggingFace(server, "demo/m", FILES)
    refusing, machine = Refusing(server, part, 1, status, headers), Machine(server, tmp_path)
    local = machine.get()
    assert {path.name: path.read_bytes() for path in local.path.iterdir()} == FILES
    assert refusing.asked >= 2
    assert len(machine.slept) == 1
    assert expected[0] <= machine.slept[0] <= expected[1]


@pytest.mark.parametrize("part", ["/api/models", "config.json", "model.safetensors"])
def test_nobody_asks_again_during_the_pause(server: BlobServer, tmp_path: Path, part: str) -> None:
    """Not even another stream of the same download."""
    FakeHuggingFace(server, "demo/m", FILES)
    refusing = Refusing(server, part, 3, 429, {"retry-after": "30"})
    asked: list[tuple[int, int]] = []

    def sleep(wait: Wait, seconds: float) -> bool:
        before = refusing.asked
        over = wait(0.2)
        asked.append((before, refusing.asked))
        return over

    machine = Machine(server, tmp_path, sleep)
    machine.get()
    assert asked == [(1, 1), (2, 2), (3, 3)]


def test_a_date_is_understood(server: BlobServer, tmp_path: Path) -> None:
    FakeHuggingFace(server, "demo/m", FILES)
    Refusing(server, "config.json", 1, 429, {"retry-after": formatdate(time.time() + 200, usegmt=True)})
    machine = Machine(server, tmp_path)
    machine.get()
    assert [190 < pause < 202 for pause in machine.slept] == [True]


def test_a_server_that_refuses_for_good_is_given_up(server: BlobServer, tmp_path: Path) -> None:
    FakeHuggingFace(server, "demo/m", FILES)
    refusing, machine = Refusing(server, "/api/models", 100, 503, {}), Machine(server, tmp_path)
    with pytest.raises(RetryableError, match=r"no listing: 127\.0\.0\.1:\d+ answered HTTP 503"):
        machine.get()
    assert (refusing.asked, len(machine.slept)) == (5, 4)


def test_who_asks_for_too_long_is_not_waited_for(server: BlobServer, tmp_path: Path) -> None:
    FakeHuggingFace(server, "demo/m", FILES)
    refusing, machine = Refusing(server, "/api/models", 100, 429, {"retry-after": "86400"}), Machine(server, tmp_path)
    with pytest.raises(RetryableError, match="HTTP 429"):
        machine.get()
    assert (refusing.asked, machine.slept) == (1, [])


def test_a_connection_that_breaks_in_a_header(server: BlobServer, tmp_path: Path) -> None:
    FakeHuggingFace(server, "demo/m", FILES)
    blob = server.blobs["/cdn/demo/m/model.safetensors"]
    blob.cut_after, blob.cuts = 20, 1
    assert Machine(server, tmp_path).get().path.is_dir()


def test_the_hub_is_asked_again_too(server: BlobServer, tmp_path: Path) -> None:
    hub = FakeCozyHub(server)
    hub.add("cozy:demo/m:latest", FILES)
    Refusing(server, "/models/request", 2, 429, {"retry-after": "9"})
    machine = Machine(server, tmp_path)
    assert machine.get("cozy:demo/m", COZY_HUB_URL=server.url).path.is_dir()
    assert [9.0 <= pause <= 10.0 for pause in machine.slept] == [True, True]


def test_an_answer_that_is_no_listing(server: BlobServer, tmp_path: Path) -> None:
    server.routes["/api/models/demo/m"] = lambda exchange: exchange.reply(200, ["a page", "of a proxy"])
    with pytest.raises(RetryableError, match="no listing"):
        Machine(server, tmp_path).get()
    sibling = {"rfilename": "a", "size": 1, "blobId": hashlib.sha1(b"").hexdigest()}
    server.routes["/api/models/demo/m"] = lambda exchange: exchange.reply(200, {"id": "m", "sha": "../../x", "siblings": [sibling]})
    with pytest.raises(FatalError, match=r"the commit '\.\./\.\./x'. expected 40 hexadecimal digits"):
        Machine(server, tmp_path).get()


def test_a_cancel_does_not_wait_for_a_listing() -> None:
    cancel, asked = threading.Event(), threading.Event()

    def listing() -> None:
        cancel.set()
        asked.wait()

    with pytest.raises(DownloadCanceledError):
        until_cancelled(listing, cancel)  # the listing would never end
    asked.set()
