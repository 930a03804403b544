"""Files that runs of the dev runner get and save."""

import base64
from collections.abc import Iterator

import pytest
from tests.conftest import Runner, write_project
from tests.runner_project import CODE


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    folder = tmp_path_factory.mktemp("runner")
    found = Runner(write_project(folder / "project", CODE), folder / "outputs")
    yield found
    assert found.stop() == 0


def test_saved_files_are_listed_and_served_with_range(runner: Runner) -> None:
    answer = runner.run("save", {"prompt": "0123456789"}).json()
    (file,) = answer["files"]
    assert file["ref"] == f"runs/{answer['run_id']}/outputs/a b.png"
    assert (runner.outputs / file["ref"]).read_bytes().endswith(b"0123456789")
    whole = runner.http.get(file["url"])
    assert whole.headers["content-type"] == "image/png"
    assert whole.headers["x-content-type-options"] == "nosniff"
    part = runner.http.get(file["url"], headers={"range": "bytes=8-11"})
    assert (part.status_code, part.content, part.headers["content-range"]) == (206, b"0123", "bytes 8-11/18")
    assert runner.http.get(file["url"], headers={"range": "bytes=99-"}).status_code == 416
    assert runner.http.head(file["url"]).headers["content-length"] == "18"
    assert runner.http.get("/v1/files/runs/nope.png").json()["error"] == "unknown_file"
    for escape in ("../runner.log", "%2e%2e/runner.log", "runs/../../runner.log", "/etc/passwd"):
        assert runner.http.get(f"/v1/files/{escape}").status_code == 404


def test_raw_bytes_when_the_only_output_is_one_file(runner: Runner) -> None:
    response = runner.http.post("/v1/run/save", json={"prompt": "x"}, headers={"accept": "image/png"})
    assert response.content == b"\x89PNG\r\n\x1a\nx"
    assert response.headers["content-type"] == "image/png"


def test_input_files_by_data_uri_multipart_and_earlier_output(runner: Runner) -> None:
    png = b"\x89PNG\r\n\x1a\nabcd"
    uri = "data:image/png;base64," + base64.b64encode(png).decode()
    expected = "image/png 12 "
    by_uri = runner.run("look", {"image": {"ref": uri}}).json()["output"]["text"]
    assert by_uri.startswith(expected)
    assert by_uri.endswith("abcd")
    by_part = runner.http.post("/v1/run/look", files={"image": ("x.png", png, "image/png")}, data={"prompt": "7", "n": "4"})
    assert by_part.json()["output"]["text"] == by_uri
    listed = runner.http.post(
        "/v1/run/look", files=[("images[0]", ("a.png", png)), ("images[1]", ("b.txt", b"text"))], data={"payload": '{"prompt":"x"}'}
    ).json()
    assert listed["output"]["text"].startswith(by_uri + " text/plain 4 ")
    saved = runner.run("save", {"prompt": "wxyz"}).json()["output"]["text"]
    assert runner.run("look", {"image": {"ref": saved}}).json()["output"]["text"].endswith("wxyz")
