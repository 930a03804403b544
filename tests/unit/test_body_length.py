"""The declared length of a body is checked before any byte of it is read."""

from typing import Any

import pytest

from gen_worker.http.asgi import Request, RequestError


def request(declared: bytes, body: bytes, asked: list[str]) -> Request:
    async def receive() -> dict[str, Any]:
        asked.append("body")
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        raise AssertionError(message)

    scope = {"type": "http", "method": "POST", "path": "/", "path_params": {}, "headers": [(b"content-length", declared)]}
    return Request(scope, receive, send)  # type: ignore[arg-type]


@pytest.mark.parametrize("declared", [b"11", b"12", b"1000000000000", b"9" * 5000, b"0" * 4990 + b"11"])
async def test_a_length_over_the_limit_is_refused_unread(declared: bytes) -> None:
    asked: list[str] = []
    with pytest.raises(RequestError, match="at most 10 are accepted") as raised:
        await request(declared, b"x", asked).body(10)
    assert (raised.value.status, asked) == (413, [])


@pytest.mark.parametrize("declared", [b"10", b"0", b"", "²".encode("latin-1"), b"-1", b"x", b"1e9"])
async def test_others_are_read(declared: bytes) -> None:
    asked: list[str] = []
    assert await request(declared, b"0123456789", asked).body(10) == b"0123456789"
    assert asked == ["body"]


async def test_a_body_that_is_longer_than_it_said_is_refused() -> None:
    with pytest.raises(RequestError, match="request body of 11 bytes; at most 10"):
        await request(b"5", b"0123456789x", []).body(10)
