"""Signed URLs."""

from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from gen_orchestrator.hub.signed_urls import SAME_S, SignedUrls


class Moving:
    """A clock in the test's hands."""

    def __init__(self) -> None:
        self.at_s = 1_000_000_000.0

    def __call__(self) -> float:
        return self.at_s


def is_valid(urls: SignedUrls, address: str, method: str = "GET") -> bool:
    parts = urlsplit(address)
    return urls.is_valid(unquote(parts.path), {name: values[0] for name, values in parse_qs(parts.query).items()}, method)


@pytest.mark.parametrize("path", ["/v1/files/ann/x.png", "/v1/files/ann/a b/ä?&#%.png", "/v1/files/ann/a:b+c=d"])
def test_a_lasting_address_stays_the_same_for_an_hour_and_holds_as_long_as_was_said(path: str) -> None:
    clock = Moving()
    urls = SignedUrls(b"x" * 32, "http://here", clock)
    first, until = urls.lasting_path(path, 600)
    assert 600 <= until - clock.at_s <= 600 + SAME_S
    same_until = until - 600
    while clock.at_s < same_until:
        assert urls.lasting_path(path, 600) == (first, until)
        clock.at_s += 300
    clock.at_s = same_until
    assert urls.lasting_path(path, 600)[0] != first
    assert is_valid(urls, first)
    assert is_valid(urls, first, "HEAD")
    assert not is_valid(urls, first, "PUT")
    assert not is_valid(urls, first.replace("/ann/", "/bob/"))
    clock.at_s = until
    assert not is_valid(urls, first)
