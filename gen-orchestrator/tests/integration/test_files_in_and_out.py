"""Files from and to callers: forms, data URIs, raw answers, ranges."""

import json
import socket
from typing import Any

from platform_process import PlatformProcess


def post_form(platform: PlatformProcess, files: list[tuple[str, Any]], data: dict[str, Any] | None = None, **headers: str) -> Any:
    return platform.http.post("/v1/local/probe/read", files=files, data=data or {}, headers=headers)


def test_a_form_brings_files_and_texts(served: PlatformProcess) -> None:
    files = [("image", ("../a b.txt", b"first")), ("more", ("x", b"second")), ("more", ("y", b"third")), ("raw", ("z", b"fourth"))]
    answer = post_form(served, files, {"words": ["a", "b"], "factor": "2.5", "title": "12"})
    assert answer.status_code == 200, answer.text
    run = answer.json()
    assert run["output"] == {"texts": ["first", "second", "third"], "raw": "fourth", "words": ["a", "b"], "factor": 2.5, "title": "12"}
    ref = served.run(run["id"])["input"]["image"]["ref"]
    assert ref == f"runs/{run['id']}/inputs/0-a_b.txt"
    assert served.http.get(f"/v1/files/local/{ref}").text == "first"
    again = served.http.post(f"/v1/runs/{run['id']}/retry").json()
    assert served.run(again["id"], 60)["output"] == run["output"]
    envelope = json.dumps({"payload": {"title": "t"}, "priority": "high", "timeout_s": 30})
    one = post_form(served, [("image", ("a", b"x")), ("more[0]", ("b", b"y"))], {"payload": envelope, "words": "one"})
    assert (one.json()["output"]["texts"], one.json()["output"]["title"], one.json()["output"]["words"]) == (["x", "y"], "t", ["one"])


def test_bytes_in_json_are_base64(served: PlatformProcess) -> None:
    image = {"ref": "data:,x"}
    assert served.invoke("read", {"image": image, "raw": "aGk="}).json()["output"]["raw"] == "hi"
    wrong = served.invoke("read", {"image": image, "raw": "h"})
    assert wrong.json()["error"]["errors"][0]["pointer"] == "/raw", wrong.text


def test_the_same_key_and_form_run_once(served: PlatformProcess) -> None:
    before = {path.name for path in (served.data / "files" / "local").iterdir()}
    first = post_form(served, [("image", ("a", b"x"))], **{"idempotency-key": "k"}).json()
    assert post_form(served, [("image", ("a", b"x"))], **{"idempotency-key": "k"}).json()["id"] == first["id"]
    assert post_form(served, [("image", ("a", b"y"))], **{"idempotency-key": "k"}).status_code == 422
    kept = {path.parent.parent.parent.parent.parent.name for path in (served.data / "files" / "local").rglob("0-a")}
    assert kept - before == {first["id"]}


def test_wrong_forms_say_what_is_wrong_and_leave_nothing(served: PlatformProcess) -> None:
    file, before = [("image", ("a", b"x"))], set((served.data / "files").rglob("inputs"))
    for files, data, word in (
        (file, {"factor": "much"}, "factor"), (file, {"payload": "{"}, "JSON"), (file, {"payload": "[1]"}, "object"),
        ([("image[1]", ("a", b"x"))], {}, "does not fit"), ([("image..x", ("a", b"x"))], {}, "expected a path"), ([("image[00]", ("a", b"x"))], {}, "expected a path"),
        (file, {"payload": '{"payload": {}, "priority": "hi"}'}, "priority"),
    ):  # fmt: skip
        answer = post_form(served, files, data)
        assert (answer.status_code, word in answer.json()["detail"]) == (400, True), answer.text
    broken = served.http.post("/v1/local/probe/read", content=b"x", headers={"content-type": "multipart/form-data"})
    assert broken.status_code == 400
    assert set((served.data / "files").rglob("inputs")) == before


def test_assets_may_be_data_uris_but_no_private_urls(served: PlatformProcess) -> None:
    answer = served.invoke("read", {"image": {"ref": "data:text/plain;base64,aGk="}})
    assert answer.json()["output"]["texts"] == ["hi"]
    for url in ("http://127.0.0.1:1/x", "file:///etc/passwd", "https://localhost/x", "http://169.254.169.254/"):
        refused = served.invoke("read", {"image": {"ref": url}})
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "validation"), refused.text
        assert refused.json()["error"]["errors"][0]["pointer"] == "/image"


def test_the_only_file_of_an_output_is_sent_raw_where_its_type_is_accepted(served: PlatformProcess) -> None:
    raw = served.invoke("picture", headers={"accept": "image/png"})
    assert (raw.status_code, raw.headers["content-type"], len(raw.content)) == (200, "image/png", 100)
    path = f"/v1/runs/{raw.headers['x-run-id']}"
    accept = {"accept": "image/*"}
    assert served.http.get(path, headers=accept).content == raw.content
    head = served.http.head(path, headers=accept)
    assert (head.headers["content-length"], head.headers["content-type"], head.content) == ("100", "image/png", b"")
    part = served.http.get(path, headers={**accept, "range": "bytes=0-3"})
    assert (part.status_code, part.content, part.headers["content-range"]) == (206, b"\x89PNG", "bytes 0-3/100")
    assert served.http.get(path, headers={**accept, "range": "bytes=500-"}).status_code == 416
    assert served.http.get(path, headers={**accept, "if-none-match": raw.headers["etag"]}).status_code == 304
    run = served.http.get(path).json()
    (file,) = run["files"]
    assert (file["size_bytes"], file["mime_type"]) == (100, "image/png")
    assert served.http.get(file["url"]).content == raw.content


def test_inputs_are_listed_on_request_only(served: PlatformProcess) -> None:
    served.invoke("echo", {"text": "a"})
    assert "input" not in served.http.get("/v1/runs").json()["data"][0]
    assert served.http.get("/v1/runs", params={"include": "input"}).json()["data"][0]["input"] == {"text": "a"}
    assert served.http.get("/v1/runs", params={"include": "output"}).status_code == 400


def test_bodies_beyond_the_limit_are_refused_declared_or_not(served: PlatformProcess) -> None:
    host, _, port = served.url.removeprefix("http://").partition(":")
    for head, piece in ((f"content-length: {33 << 20}", b""), ("transfer-encoding: chunked", b"100000\r\n" + b" " * (1 << 20) + b"\r\n")):
        with socket.create_connection((host, int(port)), timeout=60) as connection:
            connection.sendall(f"POST /v1/local/probe/echo HTTP/1.1\r\nhost: localhost\r\n{head}\r\n\r\n".encode())
            for _ in range(33 if piece else 0):
                connection.sendall(piece)
            answer = connection.recv(65536)
        assert answer.startswith(b"HTTP/1.1 413 "), answer
        assert b'"code":"too_large"' in answer
