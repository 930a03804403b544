"""Download URLs of models that expire: a worker requests new ones on its stream, and gets them only for models that its release names."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from free_ports import free_port
from model_project import CODE, COZY_TOML, safetensors, verb, write_model
from platform_process import PlatformProcess
from published_worker import published_worker
from scheduler_on_a_port import hello, in_a_loop

from gen_orchestrator.auth.worker_tokens import WorkerClaims, WorkerTokens, id_by_hand
from gen_worker.transport.grpc_client import GrpcDialer, Tls
from gen_worker.wire import codec
from gen_worker.wire.messages import Batch, Event, Registration, ReleaseConfig, UrlRefreshRequest, UrlRefreshResponse

MODEL = "cozy:me/toy:latest"


class Reader(PlatformProcess):
    """A platform whose one release needs a model that the platform keeps; its workers join by hand."""

    release_id = ""
    workers = ""

    def token(self) -> str:
        return WorkerTokens.from_folder(self.data).issue(WorkerClaims(id_by_hand(self.release_id), "local", self.release_id))


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    folder = tmp_path_factory.mktemp("reader")
    project, port = folder / "reader", free_port()
    (project / "src" / "reader").mkdir(parents=True)
    (project / "cozy.toml").write_text(COZY_TOML.replace(",<0.3.0", ",<1") + "\n[scaling]\nmax = 0\n")
    (project / "src" / "reader" / "__init__.py").write_text("")
    (project / "src" / "reader" / "main.py").write_text(CODE)
    started = Reader(project, folder / "data", "--worker-listen", f"127.0.0.1:{port}")
    try:
        started.workers = f"127.0.0.1:{port}"
        started.release_id = started.status()["tags"][0]["release_id"]
        for name in ("toy", "other"):
            assert verb(started, "push", str(write_model(folder / name, safetensors(), f'"{name}"')), f"me/{name}").returncode == 0
        yield started
    finally:
        started.close()


async def said(stream: Any, kind: type) -> Any:
    """The next message of this kind."""
    while (data := await stream.receive()) is not None:
        message = codec.decode(data)
        for each in message.messages if isinstance(message, Batch) else [message]:
            if isinstance(each, kind):
                return each
    raise AssertionError(f"the stream ended without a {kind.__name__}: {stream.ended}")


async def talk(reader: Reader, registration: Registration, *messages: Any) -> Any:
    stream = GrpcDialer(Tls(use=False)).dial(reader.workers, reader.token(), secure=False)
    async with stream as opened, asyncio.timeout(60):
        await opened.send(codec.encode(registration))
        config = await said(opened, ReleaseConfig)
        for message in messages:
            await opened.send(codec.encode(message))
        return config, await said(opened, ReleaseConfig if not registration.instance_id else UrlRefreshResponse)


def fetched(resolved: Any) -> dict[str, bytes]:
    return {file.path: httpx.get(file.url, trust_env=False).content for file in resolved.files}


@in_a_loop
async def test_a_worker_asks_and_gets_fresh_addresses(reader: Reader) -> None:
    others = (UrlRefreshRequest("cozy:me/other"), UrlRefreshRequest("no ref at all"))
    config, answer = await talk(reader, hello(), *others, UrlRefreshRequest(MODEL))
    assert config.resolved_models == {}, "ours resolve by the hub's own routes"
    assert answer.model_id == MODEL
    assert answer.resolved.snapshot_digest.startswith("blake3:")
    assert fetched(answer.resolved)["config.json"] == b'"toy"'
    refused = [json.loads(line) for line in reader.log.read_text().splitlines() if '"model.no_' in line]
    assert {entry["model_id"] for entry in refused if entry["event"] == "model.no_addresses"} == {"cozy:me/other", "no ref at all"}, refused


@in_a_loop
async def test_a_plain_worker_asks_in_words_and_gets_a_configuration(reader: Reader) -> None:
    plain = Registration(protocol_major=1)
    asked = Event("", "model.url_refresh", json.dumps({"model_id": MODEL}).encode())
    wrong = Event("", "model.url_refresh", b"not json")
    config, again = await talk(reader, plain, wrong, asked)
    for each in (config, again):
        assert list(each.resolved_models) == [MODEL]
        assert fetched(each.resolved_models[MODEL])["config.json"] == b'"toy"'
    assert again.models_by_function == config.models_by_function


def test_a_published_worker_fetches_a_model_of_this_platform(reader: Reader) -> None:
    """By the addresses that it is given when it joins: it knows no hub."""
    cache = reader.project.parent / "published"
    with published_worker(reader.project, reader.workers, reader.token()):
        reader.until(lambda: '"toy"' in {path.read_text() for path in cache.rglob("config.json")})
