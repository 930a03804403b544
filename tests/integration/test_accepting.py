"""Each step of accepting a run fails in turn, and nothing is left behind: no file, id, place in the queue, or slot."""

import json
import os
import resource
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from tests.conftest import Runner, write_project
from tests.runner_project import CODE

FILE = ("a.png", b"\x89PNG" + b"x" * 5000)
IDLE = {"active": 0, "queued": 0}


class Served:
    def __init__(self, folder: Path) -> None:
        self.run_dir = folder / "run"
        self.run_dir.mkdir()
        self.runner = Runner(write_project(folder / "project", CODE), folder / "outputs", env={"WORKER_RUN_DIR": str(self.run_dir)})

    def left(self) -> list[str]:
        # `os.walk` passes over a folder that goes while it is read; `rglob` raises.
        found = [Path(parent) / name for parent, folders, files in os.walk(self.run_dir) for name in (*folders, *files)]
        return sorted(str(path.relative_to(self.run_dir)) for path in found)

    def is_clean(self) -> bool:
        return not self.left() and self.runner.http.get("/v1/status").json()["runs"] == IDLE


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    found = Served(tmp_path_factory.mktemp("accepting"))
    yield found
    found.runner.until(found.is_clean)
    assert found.runner.stop() == 0


def parts(payload: Any = None, **files: Any) -> list[tuple[str, Any]]:
    form = [] if payload is None else [("payload", (None, payload if isinstance(payload, str) else json.dumps(payload)))]
    return form + list(files.items())


def envelope(**options: Any) -> dict[str, Any]:
    return {"payload": {}, **options}


REFUSED = [
    (400, parts("{bad", image=FILE)),
    (400, parts("[1]", image=FILE)),
    (400, [("image[5]", FILE)]),
    (400, [("", FILE)]),
    (400, [("images[0]", FILE)] * 101),
    (400, parts(envelope(run_id="../x"), image=FILE)),
    (400, parts(envelope(timeout_ms=-1), image=FILE)),
    (400, parts(envelope(resolved_cozy_models_by_id={"a": 5}), image=FILE)),
    (400, parts(envelope(resolved_cozy_models_by_id={"a": {"files": 7}}), image=FILE)),
    (400, parts(envelope(resolved_cozy_models_by_id=[]), image=FILE)),
]


@pytest.mark.parametrize(("status", "form"), REFUSED)
def test_a_refused_form_leaves_nothing(served: Served, status: int, form: list[tuple[str, Any]]) -> None:
    response = served.runner.http.post("/v1/run/look", files=form)
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert served.is_clean()


@pytest.mark.parametrize("value", [{"a": 5}, {"a": []}, {"": 1}, {"cozy:a/b@sha256:zz": {"snapshot_digest": 5}}, 5, []])
def test_models_that_cannot_be_read_are_400_and_the_id_stays_free(served: Served, value: Any) -> None:
    http = served.runner.http
    run_id = f"stuck-{abs(hash(str(value)))}"
    for _ in range(2):
        response = http.post("/v1/run/echo", json=envelope(run_id=run_id, resolved_cozy_models_by_id=value))
        assert (response.status_code, response.json().get("error")) == (400, "invalid_resolved_cozy_models_by_id")
    assert http.get(f"/v1/runs/{run_id}").status_code == 404
    assert http.post("/v1/run/echo", json=envelope(run_id=run_id)).status_code == 200
    assert served.is_clean()


def test_an_id_in_progress_refuses_the_second_and_its_files(served: Served) -> None:
    http = served.runner.http
    first = http.post("/v1/run/nap", json={"payload": {"seconds": 30}, "run_id": "taken"}, headers={"prefer": "respond-async"})
    second = http.post("/v1/run/look", files=parts(envelope(run_id="taken"), image=FILE))
    assert (second.status_code, second.json()["error"]) == (409, "duplicate_run_id")
    assert served.left() == []
    http.post(first.headers["location"] + "/cancel")
    served.runner.until(served.is_clean)


@pytest.mark.parametrize("ending", ["succeeded", "failed", "canceled", "left"])
def test_files_go_with_the_run_however_it_ends(served: Served, ending: str) -> None:
    http = served.runner.http
    if ending == "succeeded":
        assert http.post("/v1/run/look", files=parts(image=FILE)).status_code == 200
    elif ending == "failed":
        assert http.post("/v1/run/look", files=parts({"n": "x"}, image=FILE)).status_code == 400
    elif ending == "canceled":
        run = http.post("/v1/run/nap", files=parts({"seconds": 30}, image=FILE), headers={"prefer": "respond-async"})
        assert http.post(run.headers["location"] + "/cancel").json()["status"] == "canceled"
    else:
        with pytest.raises(httpx.ReadTimeout):
            http.post("/v1/run/nap", files=parts({"seconds": 30}, image=FILE), timeout=httpx.Timeout(60, read=0.3))
    served.runner.until(served.is_clean)


def test_a_caller_that_leaves_in_the_middle_of_a_file_leaves_nothing(served: Served) -> None:
    address = urlsplit(served.runner.url)
    with socket.create_connection((address.hostname, address.port)) as sock:
        head = b"POST /v1/run/look HTTP/1.1\r\nhost: localhost\r\ncontent-type: multipart/form-data; boundary=B\r\ncontent-length: 9000000\r\n\r\n"
        sock.sendall(head + b'--B\r\ncontent-disposition: form-data; name="image"; filename="a.png"\r\n\r\n' + b"x" * 3_000_000)
    served.runner.until(served.is_clean)


def test_a_disk_that_is_full_is_an_answer_and_leaves_nothing(served: Served) -> None:
    pid, limits = served.runner.process.pid, resource.RLIMIT_FSIZE
    before = resource.prlimit(pid, limits)
    resource.prlimit(pid, limits, (300_000, before[1]))
    try:
        response = served.runner.http.post("/v1/run/look", files=parts(image=("a.png", b"x" * 900_000)))
    finally:
        resource.prlimit(pid, limits, before)
    assert (response.status_code, response.json()["code"]) == (507, "disk_full")
    assert served.is_clean()
    assert served.runner.http.post("/v1/run/look", files=parts(image=FILE)).status_code == 200


def test_canceled_runs_leave_the_queue_at_once(served: Served) -> None:
    """Else they count as waiting until the one before them ends, and everybody gets 429."""
    http = served.runner.http
    busy = http.post("/v1/run/alone", json={"seconds": 60}, headers={"prefer": "respond-async"}).headers["location"]
    for _ in range(1100):
        queued = http.post("/v1/run/alone", json={}, headers={"prefer": "respond-async"})
        assert queued.status_code == 202
        assert http.post(queued.headers["location"] + "/cancel").json()["status"] == "canceled"
    assert http.get("/v1/status").json()["runs"] == {"active": 1, "queued": 0}
    http.post(busy + "/cancel")
    served.runner.until(served.is_clean)


def test_a_full_queue_refuses_before_it_reads_and_keeps_nothing(tmp_path: Path) -> None:
    served = Served(tmp_path)
    http = served.runner.http
    locations = [
        http.post("/v1/run/alone", json={"seconds": 60}, headers={"prefer": "respond-async"}).headers["location"] for _ in range(1001)
    ]
    refused = http.post("/v1/run/look", files=parts(image=FILE))
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
    assert served.left() == []
    for location in reversed(locations):
        http.post(location + "/cancel")
    served.runner.until(served.is_clean)
    assert served.runner.stop() == 0


def test_an_idempotency_key_answers_with_the_same_run(served: Served) -> None:
    http = served.runner.http
    key = {"idempotency-key": "k-1"}
    first = http.post("/v1/run/echo", json={"prompt": "a"}, headers=key)
    again = http.post("/v1/run/echo", json={"prompt": "a"}, headers=key)
    assert again.json() == first.json()
    assert again.headers["idempotent-replayed"] == "true"
    assert "idempotent-replayed" not in first.headers
    for how in ({"prefer": "respond-async"}, {"prefer": "wait=5"}, {"accept": "text/event-stream"}, {"accept": "application/x-ndjson"}):
        assert http.post("/v1/run/echo", json={"prompt": "a"}, headers={**key, **how}).headers["idempotent-replayed"] == "true", how
    for path, body in (("echo", {"prompt": "b"}), ("aecho", {"prompt": "a"})):
        other = http.post(f"/v1/run/{path}", json=body, headers=key)
        assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    assert http.post("/v1/run/echo", json={"prompt": "a"}, headers={"idempotency-key": "k-2"}).json()["run_id"] != first.json()["run_id"]
    assert http.post("/v1/run/echo", json={}, headers={"idempotency-key": "k" * 300}).status_code == 400


def test_an_idempotency_key_joins_a_run_in_progress_and_leaving_it_cancels_nothing(served: Served) -> None:
    http = served.runner.http
    key = {"idempotency-key": "k-join"}
    started = http.post("/v1/run/nap", json={"seconds": 1}, headers={**key, "prefer": "respond-async"})
    with pytest.raises(httpx.ReadTimeout):
        http.post("/v1/run/nap", json={"seconds": 1}, headers=key, timeout=httpx.Timeout(60, read=0.2))
    joined = http.post("/v1/run/nap", json={"seconds": 1}, headers=key)
    assert joined.json()["run_id"] == started.json()["id"]
    assert joined.json()["output"] == {"text": "slept"}


def test_an_idempotency_key_of_a_form_goes_by_what_the_files_hold(served: Served) -> None:
    http = served.runner.http
    key = {"idempotency-key": "k-form"}
    first = http.post("/v1/run/look", files=parts(image=FILE), headers=key).json()
    assert http.post("/v1/run/look", files=parts(image=FILE), headers=key).json()["run_id"] == first["run_id"]
    assert http.post("/v1/run/look", files=parts(image=("a.png", os.urandom(9))), headers=key).status_code == 422
    assert served.is_clean()


def test_a_request_that_never_became_a_run_keeps_no_key(served: Served) -> None:
    http = served.runner.http
    key = {"idempotency-key": "k-refused"}
    assert http.post("/v1/run/echo", content=b"{", headers=key).status_code == 400
    assert http.post("/v1/run/echo", json={"prompt": "x"}, headers=key).status_code == 200
