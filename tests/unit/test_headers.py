"""Header values parsed by their grammar; hosts and origins by their parts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gen_worker.http.headers import (
    accepts_coding,
    asks_for,
    http_date,
    matches_etag,
    matches_etag_strongly,
    media_type,
    parse_accept,
    parse_prefer,
    preferred,
    whole_number,
)
from gen_worker.http.hosts import HostPolicy, host_name

STREAMED = ("text/event-stream", "application/x-ndjson", "application/json")


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ("text/event-stream", "text/event-stream"),
        ("Text/Event-Stream", "text/event-stream"),
        ("application/json, text/event-stream;q=0", "application/json"),
        ("application/json;q=0.5, text/event-stream", "text/event-stream"),
        ("application/json, text/event-stream", "application/json"),
        ("text/event-stream, application/json", "text/event-stream"),
        ("text/event-stream;q=0.1, */*", None),
        ('text/plain;x="text/event-stream, a"', None),
        ("x-text/event-stream-not", None),
        ("text/event-stream;q=two", None),
        ("*/*", None),
        ("", None),
        (",;,=;q", None),
    ],
)
def test_what_is_streamed_is_what_accept_names(header: str, found: str | None) -> None:
    assert preferred(header, STREAMED) == found


@pytest.mark.parametrize(
    ("header", "kind", "wanted"),
    [
        ("image/png", "image/png", True),
        ("IMAGE/*", "image/png", True),
        ("image/png;q=0", "image/png", False),
        ("image/png;q=0.2, application/json", "image/png", False),
        ("*/*", "image/png", False),
        ("image/pngx", "image/png", False),
    ],
)
def test_a_file_is_answered_raw_where_its_type_is_asked_for(header: str, kind: str, wanted: bool) -> None:
    assert asks_for(header, kind) is wanted


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ("respond-async", (True, None)),
        ("Respond-Async, WAIT=5", (True, 5)),
        ('wait="7"; foo=bar', (False, 7)),
        ("wait=3, wait=9", (False, 3)),
        ("wait=999999", (False, 3600)),
        ("wait", (False, 60)),
        ('Wait=""', (False, 60)),
        ("wait=²", (False, None)),
        ("wait=-1", (False, None)),
        ("x-respond-async, nowait=5", (False, None)),
        ('note="a, respond-async"', (False, None)),
    ],
)
def test_preferences(header: str, found: tuple[bool, int | None]) -> None:
    assert parse_prefer(header) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Sun, 06 Nov 1994 08:49:37 GMT", 784111777),
        ("Sunday, 06-Nov-94 08:49:37 GMT", 784111777),
        ("Sun Nov  6 08:49:37 1994", 784111777),
        ("yesterday", None),
        ("Fri, 99 Nov 2026 08:33:50 GMT", None),
        ("Fri, 27 Nov 99999999999 08:33:50 GMT", None),
        ("", None),
    ],
)
def test_dates(text: str, found: float | None) -> None:
    assert http_date(text) == found


def test_entity_tags_are_compared_whole_and_weakly() -> None:
    assert matches_etag('W/"5-running"', '"5-running"')
    assert matches_etag('"a", "5-running"', '"5-running"')
    assert matches_etag('"5-running"', 'W/"5-running"')
    assert matches_etag('W/"5-running"', 'W/"5-running"')
    assert matches_etag(" * ", '"5-running"')
    assert matches_etag("*", '"5-running"')
    assert not matches_etag('"15-running"', '"5-running"')
    assert not matches_etag("5-running", '"5-running"')


def test_weak_entity_tags_equal_nothing_where_tags_are_compared_strongly() -> None:
    assert matches_etag_strongly('"a", "5-running"', '"5-running"')
    assert matches_etag_strongly(" * ", '"5-running"')
    for header in ('W/"5-running"', '"15-running"', "5-running", "", '"a", *'):
        assert not matches_etag_strongly(header, '"5-running"')


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ("gzip", True),
        ("br, GZIP;q=0.5", True),
        ("gzip;q=0", False),
        ("gzip; q=0.000, br", False),
        ("x-gzip2", False),
        ("*", False),
        ("", False),
    ],
)
def test_codings(header: str, found: bool) -> None:
    assert accepts_coding(header, "gzip") is found


def test_numbers_are_ascii_digits() -> None:
    assert whole_number("0010") == 10
    for text in ("", "²", "٣", "-1", "+1", "1_0", " 1", "1.0", "9" * 5000):
        assert whole_number(text) is None


def test_media_types_are_compared_in_lower_case_without_parameters() -> None:
    assert media_type(" Multipart/Form-Data ; boundary=B") == "multipart/form-data"


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8081", "127.0.0.1:1", "[::1]:80", "localhost.", "box.local:9"])
def test_hosts_that_are_this_server(host: str) -> None:
    assert HostPolicy.listening_on("127.0.0.1", ["box.local"]).serves(host)


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8081",
        "localhost.evil.example",
        "a@localhost",
        "localhost:x",
        "[::1",
        "",
        "127.0.0.1 x",
        "localhost/",
        "1",
    ],
)
def test_hosts_that_are_not(host: str) -> None:
    assert not HostPolicy.listening_on("127.0.0.1").serves(host)


def test_a_server_on_a_network_answers_to_any_name_unless_names_are_given() -> None:
    assert HostPolicy.listening_on("0.0.0.0").serves("box.local")
    assert not HostPolicy.listening_on("0.0.0.0", ["box.local"]).serves("evil.example")
    for bad in ("*", "http://x", "a b", "[::1"):
        with pytest.raises(ValueError, match="--allow-host"):
            HostPolicy.listening_on("127.0.0.1", [bad])


@given(st.text(max_size=60))
def test_nothing_raises_whatever_comes(text: str) -> None:
    parse_accept(text)
    parse_prefer(text)
    matches_etag(text, '"a"')
    matches_etag_strongly(text, '"a"')
    accepts_coding(text, "gzip")
    http_date(text)
    host_name(text)
    HostPolicy.listening_on("127.0.0.1").serves(text)
