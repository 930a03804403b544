"""Refs of files that lead out of their folder, in requests for outputs and in payloads."""

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from tests.bad_input_project import CODE
from tests.conftest import Runner, write_project


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    folder = tmp_path_factory.mktemp("bad")
    found = Runner(write_project(folder / "project", CODE), folder / "outputs")
    yield found
    found.stop()


NESTED = [
    (lambda image: {"page": {"image": image, "steps": 999}}, "/page/image", "hello 50"),
    (lambda image: {"row": {"image": image}}, "/row/image", "hello"),
    (lambda image: {"pair": [image]}, "/pair/0", "hello"),
    (lambda image: {"pages": {"a/b": [{"image": image, "steps": 0}]}}, "/pages/a~1b/0/image", "hello 1"),
]


@pytest.mark.parametrize(
    ("ref", "status", "text"),
    [
        ("../x", 400, "path traversal"),
        ("a/../../x", 400, "path traversal"),
        ("..\\x", 400, "path traversal"),
        ("https://example.org/x", 400, "is a URL"),
        ("", 400, "output ref is empty"),
        ("a\x00b", 400, "control character"),
        ("x" * 5000, 400, "at most 1024"),
        ("y" * 300, 400, "more than 255 bytes"),
        ("/etc/x", 200, "etc/x"),
        ("a//b/./c", 200, "a/b/c"),
        ("%2e%2e/x", 200, "%2e%2e/x"),
    ],
)
def test_output_refs(runner: Runner, ref: str, status: int, text: str) -> None:
    response = runner.run("save", {"prompt": ref})
    assert response.status_code == status
    answer = response.json()
    assert text in (answer["output"]["text"] if status == 200 else answer["error_message"])
    assert not (runner.outputs.parent / "x").exists()


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:{port}/x",
        "http://127.0.0.1/x",
        "http://[::1]/x",
        "http://0.0.0.0/x",
        "http://2130706433/x",
        "http://0x7f.1/x",
        "http://localhost/x",
        "http://169.254.169.254/latest/meta-data",
        "http://100.64.0.1/x",
        "http://10.0.0.1/x",
        "http://[::ffff:10.0.0.1]/x",
        "http://user:pw@example.org/x",
        "file:///etc/passwd",
        "gopher://example.org/x",
        "http://no-such-host.invalid/x",
        "http:///x",
    ],
)
def test_input_urls_that_are_not_public(runner: Runner, url: str) -> None:
    response = runner.run("read", {"image": {"ref": url.format(port=urlsplit(runner.url).port)}})
    assert response.status_code == 400
    assert "input url blocked" in response.json()["error_message"]
    assert response.json()["errors"][0]["pointer"] == "/image"


def test_a_callers_local_path_is_dropped(runner: Runner) -> None:
    response = runner.run("read", {"image": {"ref": "x", "local_path": "/etc/hostname"}})
    assert response.status_code == 400
    assert "there is no file under the ref 'x'" in response.json()["error_message"]


@pytest.mark.parametrize(("payload", "pointer", "text"), NESTED)
def test_files_in_classes_of_every_kind_are_fetched_and_clamped(runner: Runner, payload: Any, pointer: str, text: str) -> None:
    assert runner.run("read-nested", payload({"ref": "data:,hello"})).json()["output"] == {"text": text}
    response = runner.run("read-nested", payload({"ref": "x", "local_path": "/etc/hostname"}))
    assert response.status_code == 400
    assert response.json()["errors"][0]["pointer"] == pointer


@pytest.mark.parametrize("ref", ["../../../etc/passwd", "/etc/passwd", "data:text/plain;base64,@@", "data:nonsense"])
def test_input_refs_that_lead_nowhere(runner: Runner, ref: str) -> None:
    response = runner.run("read", {"image": {"ref": ref}})
    assert response.status_code == 400
    assert response.json()["error_type"] == "validation"
