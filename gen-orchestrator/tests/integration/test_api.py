"""What callers send that no caller should: names, bodies and headers. Nothing here changes what the platform serves, so it is one."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from platform_process import PlatformProcess, write_project


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlatformProcess]:
    folder = tmp_path_factory.mktemp("api")
    platform = PlatformProcess(write_project(folder / "probe"), folder / "data")
    yield platform
    platform.close()


def problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The problem that an answer is."""
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), answer.text
    found: dict[str, Any] = answer.json()
    assert (found["status"], found["code"]) == (status, code), found
    assert found["title"]
    assert found["detail"]
    return found


BAD_TAGS = (
    "",
    "%2E%2E",
    "%2E",
    ".hidden",
    "-x",
    "_x",
    "a%00b",
    "Prod",
    "v1.0%20",
    "a:b",
    "caf%C3%A9",
    "%FF",
    "a%0Ab",
    "x" * 65,
    "x" * 5000,
)


@pytest.mark.parametrize("tag", BAD_TAGS)
def test_what_can_be_no_tag_is_none_for_whoever_moves_or_asks(api: PlatformProcess, tag: str) -> None:
    release = api.http.get("/v1/releases").json()["data"][0]["release_id"]
    rule = "expected 1 to 64 lower-case letters"
    if tag:
        moved = api.http.put(f"/v1/endpoints/local/probe/functions/echo/tags/{tag}", json={"release_id": release})
        assert rule in problem(moved, 400, "validation")["detail"]
    assert rule in problem(api.http.post(f"/v1/local/probe/echo:{tag}", json={}), 400, "validation")["detail"]
    put = api.http.put(f"/v1/runs/bad-tag?function=local/probe/echo:{tag}", json={})
    assert rule in problem(put, 400, "validation")["detail"]
    assert {ref["ref"].rpartition(":")[2] for ref in api.status()["tags"]} == {"dev", "prod"}


def test_a_slash_in_a_tag_is_another_path(api: PlatformProcess) -> None:
    for tag in ("a%2Fb", "a/b", "%2E%2E/%2E%2E", "/", ""):
        problem(api.http.put(f"/v1/endpoints/local/probe/functions/echo/tags/{tag}", json={"release_id": "x"}), 404, "not_found")


def test_a_put_runs_once_for_its_id_and_takes_no_key(api: PlatformProcess) -> None:
    def put(text: str, **headers: str) -> httpx.Response:
        return api.http.put("/v1/runs/of-mine", params={"function": "local/probe/echo"}, json={"payload": {"text": text}}, headers=headers)

    assert "leave the header out" in problem(put("a", **{"idempotency-key": "k1"}), 400, "validation")["detail"]
    problem(api.http.get("/v1/runs/of-mine"), 404, "not_found")
    first = put("a")
    assert (first.status_code, first.json()["id"], put("a").json()) == (200, "of-mine", first.json())
    assert "'of-mine' was used for another request" in problem(put("b"), 422, "idempotency_key_reused")["detail"]
    assert api.invoke("echo", {"text": "a"}, headers={"idempotency-key": "k1"}).json()["id"] != "of-mine", "the key is still free"
    for function in ("", "echo", "local/probe", "local//echo", "/local/probe/echo", "local/probe/echo/x", "local/probe/"):
        answer = api.http.put("/v1/runs/of-mine", params={"function": function}, json={})
        assert "expected owner/endpoint/function[:tag]" in problem(answer, 400, "validation")["detail"]
