"""A request has a limit in all, however slowly a server drips."""

import socket
import time
from pathlib import Path

import httpcore
import pytest
from tests.dripping import BODY, HANDSHAKE, HEAD, Dripping
from tests.waiting import until

from gen_worker.net.deadline import DeadlineBackend
from gen_worker.net.guard import DownloadError, GuardedBackend, GuardedDownloader, OpenBackend

LIMIT_S = 0.3


@pytest.mark.parametrize(("scheme", "first"), [("http", HEAD), ("http", BODY), ("https", HANDSHAKE)])
def test_a_dripping_server_is_left_at_the_limit(scheme: str, first: bytes) -> None:
    with Dripping(first) as server:
        with (
            httpcore.ConnectionPool(network_backend=DeadlineBackend(OpenBackend(), LIMIT_S)) as pool,
            pytest.raises(httpcore.TimeoutException),
        ):
            pool.request("GET", f"{scheme}://127.0.0.1:{server.port}/")
        until(server.was_left)


def test_a_server_that_takes_nothing_is_left_at_the_limit() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        httpcore.ConnectionPool(network_backend=DeadlineBackend(OpenBackend(), LIMIT_S)) as pool,
        pytest.raises(httpcore.WriteTimeout),
    ):
        pool.request("POST", f"http://127.0.0.1:{server.getsockname()[1]}/", content=bytes(32 << 20))


def test_a_download_of_an_input_is_left_at_the_limit(tmp_path: Path) -> None:
    for first in (HEAD, BODY):
        with Dripping(first) as server:
            backend = GuardedBackend(lambda host, _: ["127.0.0.1"], lambda address: True)
            downloader = GuardedDownloader(backend, ports=(server.port,), total_s=LIMIT_S)
            with pytest.raises(DownloadError, match=r"took longer than 0\.3 s"):
                downloader.fetch(f"http://example.com:{server.port}/", tmp_path / "x", 0)
            until(server.was_left)


def test_the_addresses_of_a_host_share_one_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host with many dead addresses takes no longer than one with a single one, and the last address still has its turn."""
    asked: list[float] = []

    def connect(_: object, __: str, ___: int, timeout: float, *args: object, **kwargs: object) -> None:
        asked.append(timeout)
        raise httpcore.ConnectTimeout

    monkeypatch.setattr(httpcore.SyncBackend, "connect_tcp", connect)
    backend = GuardedBackend(lambda host, _: [f"93.184.216.{n}" for n in range(9)])
    began_s = time.monotonic()
    with pytest.raises(httpcore.ConnectTimeout):
        backend.connect_tcp("example.com", 80, 9.0)
    assert len(asked) == 3
    assert asked[0] <= 3.0
    assert asked[2] <= 9.0
    assert time.monotonic() - began_s < 9.0


def test_a_name_without_an_address_is_an_error_of_the_network() -> None:
    def nothing(host: str, port: int) -> list[str]:
        raise OSError("no such name")

    with pytest.raises(httpcore.ConnectError, match=r"host 'nowhere\.test' cannot be resolved"):
        OpenBackend(nothing).connect_tcp("nowhere.test", 80, 1.0)
