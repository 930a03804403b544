"""Invalid requests: names, bodies and headers. No test here changes the platform's state, so all share one."""

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

    assert "remove the header" in problem(put("a", **{"idempotency-key": "k1"}), 400, "validation")["detail"]
    problem(api.http.get("/v1/runs/of-mine"), 404, "not_found")
    first = put("a")
    assert (first.status_code, first.json()["id"], put("a").json()) == (200, "of-mine", first.json())
    assert ("idempotent-replayed" in first.headers, put("a").headers["idempotent-replayed"]) == (False, "true")
    assert "'of-mine' was used for another request" in problem(put("b"), 422, "idempotency_key_reused")["detail"]
    assert api.invoke("echo", {"text": "a"}, headers={"idempotency-key": "k1"}).json()["id"] != "of-mine", "the key is still free"
    for how in ({}, {"prefer": "respond-async"}, {"accept": "text/event-stream"}):
        again = api.invoke("echo", {"text": "a"}, headers={"idempotency-key": "k1", **how})
        assert again.headers["idempotent-replayed"] == "true", how
    twice = [("content-type", "application/json"), ("idempotency-key", "k1"), ("idempotency-key", "k2")]
    answer = api.http.post("/v1/local/probe/echo", content=b"{}", headers=twice)
    assert "2 headers 'idempotency-key'" in problem(answer, 400, "validation")["detail"]
    for function in ("", "echo", "local/probe", "local//echo", "/local/probe/echo", "local/probe/echo/x", "local/probe/"):
        answer = api.http.put("/v1/runs/of-mine", params={"function": function}, json={})
        assert "expected owner/endpoint/function[:tag]" in problem(answer, 400, "validation")["detail"]


def test_a_page_of_runs_is_bounded_by_its_bytes(api: PlatformProcess) -> None:
    text = "x" * (3 << 20)
    ids = [api.submit("refuse", {"text": text}) for _ in range(3)]
    seen: list[str] = []
    cursor = ""
    for _ in range(5):
        answer = api.http.get("/v1/runs", params={"function": "refuse", "include": "input", "limit": 500, "cursor": cursor})
        page = answer.json()
        assert len(answer.content) < 10 << 20
        assert 1 <= len(page["data"]) <= 2
        seen += [run["id"] for run in page["data"]]
        cursor = page["next_cursor"] or ""
        if not cursor:
            break
    assert seen == ids[::-1]


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=501", "limit=-1", "limit=x", "limit=", "status=done", "include=output", "owner=%00", "function=a%00", "cursor=%00"],
)
def test_lists_refuse_what_they_cannot_mean(api: PlatformProcess, query: str) -> None:
    assert query.partition("=")[0] in problem(api.http.get(f"/v1/runs?{query}"), 400, "validation")["detail"]


def test_a_cursor_of_a_run_that_is_gone_ends_no_list_silently(api: PlatformProcess) -> None:
    assert "start again" in problem(api.http.get("/v1/runs?cursor=gone"), 400, "validation")["detail"]


@pytest.mark.parametrize("name", ["%00", "%2E%2E", "a%0Ab", "%FF", "x" * 129, "-"])
def test_what_can_be_no_run_is_not_found(api: PlatformProcess, name: str) -> None:
    for path in (f"/v1/runs/{name}", f"/v1/runs/{name}/events", f"/v1/runs/{name}/webhooks"):
        problem(api.http.get(path), 404, "not_found")
    for verb in ("cancel", "retry"):
        problem(api.http.post(f"/v1/runs/{name}/{verb}"), 404, "not_found")
    assert api.http.put(f"/v1/runs/{name}?function=local/probe/echo", json={}).status_code in (400, 404)


def test_texts_of_a_form_are_bounded(api: PlatformProcess) -> None:
    part = b'--B\r\ncontent-disposition: form-data; name="%b"\r\n\r\n' + b"x" * (9 << 20) + b"\r\n"
    body = part % b"a" + part % b"b" + b"--B--\r\n"
    answer = api.http.post("/v1/local/probe/echo", content=body, headers={"content-type": "multipart/form-data; boundary=B"})
    assert "send large inputs as files" in problem(answer, 413, "too_large")["detail"]


def test_hostile_bodies_keep_nobody_waiting(api: PlatformProcess) -> None:
    """How long others wait depends on the machine; that each of these is refused, and soon, does not. Each is a little beyond its bound."""
    field = b'--B\r\ncontent-disposition: form-data; name="a"\r\n'
    form = {"content-type": "multipart/form-data; boundary=B"}
    for body, headers, status in (
        (b"[" * (8 << 20), {}, 400),
        (b'{"a":' * 210_000, {}, 400),
        (b'{"a":[' + b"[]," * 210_000 + b"1]}", {}, 413),
        (b'{"a":[' + b"1," * 2_100_000 + b"1]}", {}, 413),
        (b'{"a":[' + b'"",' * 2_100_000 + b"1]}", {}, 413),
        (b"{" + b",".join(b'"%x":1' % number for number in range(210_000)) + b"}", {}, 413),
        (b"".join(field.replace(b'"a"', b'"%d"' % number) + b"\r\nx\r\n" for number in range(20_000)) + b"--B--", form, 400),
        (field + b"x: y\r\n" * 200_000 + b"\r\nx\r\n--B--", form, 400),
        (field + b"\r\n" + b"\r\n-" * 6_000_000 + b"\r\n--B--", form, 413),
    ):
        answer = api.http.post("/v1/local/probe/echo", content=body, headers=headers)
        assert answer.status_code == status, (body[:60], answer.text)
    assert api.invoke("echo", {"text": "still"}).json()["output"]["text"] == "still"


@pytest.mark.parametrize(
    "path", ["runs%0A", "runs/x%0A/events%0A", "files/local/a%0Ab", "files/local/a/b%0A", "runs/x/event", "keys/a/b", "me%0A"]
)
def test_a_path_that_is_none_is_not_found(api: PlatformProcess, path: str) -> None:
    for method in ("GET", "POST", "DELETE"):
        if method == "GET" or "files" not in path:
            problem(api.http.request(method, f"/v1/{path}"), 404, "not_found")


@pytest.mark.parametrize("tag", ["a:b", "brief%3Adev", "%0A", "%00", "x" * 300])
def test_what_can_be_no_tag_of_a_model_is_no_server_error(api: PlatformProcess, tag: str) -> None:
    model = "/v1/models/local/m/tags"
    assert api.http.delete(f"{model}/{tag}").status_code in (400, 404)
    problem(api.http.put(f"{model}/{tag}", json={"files": []}), 400, "validation")
    for method in ("GET", "DELETE"):
        assert api.http.request(method, f"/v1/models/local/{tag}").status_code in (400, 404)
