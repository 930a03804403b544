"""Files from and to callers: forms, data URIs, raw answers, ranges."""

import json
import socket
from typing import Any

from platform_process import PlatformProcess


def post_form(platform: PlatformProcess, files: list[tuple[str, Any]], data: dict[str, Any] | None = None, **headers: str) -> Any:
    return platform.http.post("/v1/local/probe/read", files=files, data=data or {}, headers=headers)


def test_a_form_brings_files_and_texts(platform: PlatformProcess) -> None:
    files = [("image", ("../a b.txt", b"first")), ("more", ("x", b"second")), ("more", ("y", b"third")), ("raw", ("z", b"fourth"))]
    answer = post_form(platform, files, {"words": ["a", "b"], "factor": "2.5", "title": "12"})
    assert answer.status_code == 200, answer.text
    run = answer.json()
    assert run["output"] == {"texts": ["first", "second", "third"], "raw": "fourth", "words": ["a", "b"], "factor": 2.5, "title": "12"}
    ref = platform.run(run["id"])["input"]["image"]["ref"]
    assert ref == f"runs/{run['id']}/inputs/0-a_b.txt"
    assert platform.http.get(f"/v1/files/local/{ref}").text == "first"
    again = platform.http.post(f"/v1/runs/{run['id']}/retry").json()
    assert platform.run(again["id"], 60)["output"] == run["output"]
    envelope = json.dumps({"payload": {"title": "t"}, "priority": "high", "timeout_s": 30})
    one = post_form(platform, [("image", ("a", b"x")), ("more[0]", ("b", b"y"))], {"payload": envelope, "words": "one"})
    assert (one.json()["output"]["texts"], one.json()["output"]["title"], one.json()["output"]["words"]) == (["x", "y"], "t", ["one"])


def test_bytes_in_json_are_base64(platform: PlatformProcess) -> None:
    image = {"ref": "data:,x"}
    assert platform.invoke("read", {"image": image, "raw": "aGk="}).json()["output"]["raw"] == "hi"
    wrong = platform.invoke("read", {"image": image, "raw": "h"})
    assert wrong.json()["error"]["errors"][0]["pointer"] == "/raw", wrong.text


def test_the_same_key_and_form_run_once(platform: PlatformProcess) -> None:
    first = post_form(platform, [("image", ("a", b"x"))], **{"idempotency-key": "k"}).json()
    assert post_form(platform, [("image", ("a", b"x"))], **{"idempotency-key": "k"}).json()["id"] == first["id"]
    assert post_form(platform, [("image", ("a", b"y"))], **{"idempotency-key": "k"}).status_code == 422
    kept = [path.parent.parent.parent.parent.parent.name for path in (platform.data / "files" / "local").rglob("0-a")]
    assert kept == [first["id"]]


def test_wrong_forms_say_what_is_wrong_and_leave_nothing(platform: PlatformProcess) -> None:
    file = [("image", ("a", b"x"))]
    for files, data, word in (
        (file, {"factor": "much"}, "factor"), (file, {"payload": "{"}, "JSON"), (file, {"payload": "[1]"}, "object"),
        ([("image[1]", ("a", b"x"))], {}, "does not fit"), ([("image..x", ("a", b"x"))], {}, "expected a path"), ([("image[00]", ("a", b"x"))], {}, "expected a path"),
        (file, {"payload": '{"payload": {}, "priority": "hi"}'}, "priority"),
    ):  # fmt: skip
        answer = post_form(platform, files, data)
        assert (answer.status_code, word in answer.json()["detail"]) == (400, True), answer.text
    broken = platform.http.post("/v1/local/probe/read", content=b"x", headers={"content-type": "multipart/form-data"})
    assert broken.status_code == 400
    assert not list((platform.data / "files").rglob("inputs"))


def test_assets_may_be_data_uris_but_no_private_urls(platform: PlatformProcess) -> None:
    answer = platform.invoke("read", {"image": {"ref": "data:text/plain;base64,aGk="}})
    assert answer.json()["output"]["texts"] == ["hi"]
    for url in ("http://127.0.0.1:1/x", "file:///etc/passwd", "https://localhost/x", "http://169.254.169.254/"):
        refused = platform.invoke("read", {"image": {"ref": url}})
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "validation"), refused.text
        assert refused.json()["error"]["errors"][0]["pointer"] == "/image"


def test_the_only_file_of_an_output_is_sent_raw_where_its_type_is_accepted(platform: PlatformProcess) -> None:
    raw = platform.invoke("picture", headers={"accept": "image/png"})
    assert (raw.status_code, raw.headers["content-type"], len(raw.content)) == (200, "image/png", 100)
    path = f"/v1/runs/{raw.headers['x-run-id']}"
    accept = {"accept": "image/*"}
    assert platform.http.get(path, headers=accept).content == raw.content
    head = platform.http.head(path, headers=accept)
    assert (head.headers["content-length"], head.headers["content-type"], head.content) == ("100", "image/png", b"")
    part = platform.http.get(path, headers={**accept, "range": "bytes=0-3"})
    assert (part.status_code, part.content, part.headers["content-range"]) == (206, b"\x89PNG", "bytes 0-3/100")
    assert platform.http.get(path, headers={**accept, "range": "bytes=500-"}).status_code == 416
    assert platform.http.get(path, headers={**accept, "if-none-match": raw.headers["etag"]}).status_code == 304
    run = platform.http.get(path).json()
    (file,) = run["files"]
    assert (file["size_bytes"], file["mime_type"]) == (100, "image/png")
    assert platform.http.get(file["url"]).content == raw.content


def test_inputs_are_listed_on_request_only(platform: PlatformProcess) -> None:
    platform.invoke("echo", {"text": "a"})
    assert "input" not in platform.http.get("/v1/runs").json()["data"][0]
    assert platform.http.get("/v1/runs", params={"include": "input"}).json()["data"][0]["input"] == {"text": "a"}
    assert platform.http.get("/v1/runs", params={"include": "output"}).status_code == 400


def test_bodies_beyond_the_limit_are_refused_declared_or_not(platform: PlatformProcess) -> None:
    host, _, port = platform.url.removeprefix("http://").partition(":")
    for head, piece in ((f"content-length: {33 << 20}", b""), ("transfer-encoding: chunked", b"100000\r\n" + b" " * (1 << 20) + b"\r\n")):
        with socket.create_connection((host, int(port)), timeout=60) as connection:
            connection.sendall(f"POST /v1/local/probe/echo HTTP/1.1\r\nhost: localhost\r\n{head}\r\n\r\n".encode())
            for _ in range(33 if piece else 0):
                connection.sendall(piece)
            answer = connection.recv(65536)
        assert answer.startswith(b"HTTP/1.1 413 "), answer
        assert b'"code":"too_large"' in answer
