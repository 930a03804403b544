"""The same requests give the same answers through `cozyctl dev`, `cozyctl up` on SQLite, and `cozyctl up` on PostgreSQL."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from platform_process import COZYCTL, PlatformProcess, read_events, write_project


class Server:
    """Where functions are asked for: their path differs, and nothing else."""

    def __init__(self, http: httpx.Client, path: str, kept: Path) -> None:
        self.http = http
        self.path = path
        self._kept = kept

    def files(self) -> int:
        """How many files of callers are kept."""
        return len([path for path in self._kept.rglob("*") if path.is_file() and ("upload-" in str(path) or "/inputs/" in str(path))])

    def invoke(self, function: str, payload: object, headers: dict[str, str] | None = None) -> httpx.Response:
        return self.http.post(f"{self.path}/{function}", json={"payload": payload}, headers=headers)

    def run(self, function: str, payload: object) -> dict[str, Any]:
        """Run it without waiting, then wait for its end: the run object."""
        answer = self.invoke(function, payload, {"prefer": "respond-async"})
        assert (answer.status_code, answer.headers["preference-applied"]) == (202, "respond-async"), answer.text
        found: dict[str, Any] = self.http.get(answer.headers["location"], params={"wait": 60}).json()
        return found


@pytest.fixture(scope="module", params=["dev", "sqlite", "postgres"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp(request.param)
    project = write_project(folder / "probe")
    if request.param == "dev":
        command = [str(COZYCTL), "dev", "--folder", str(project), "--listen", "127.0.0.1:0", "--outputs", str(folder / "out"), "--json"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        assert process.stderr is not None
        url = next(line for line in (json.loads(each) for each in process.stderr) if line["event"] == "dev.listening")["url"]
        with httpx.Client(base_url=url, timeout=60, trust_env=False) as http:
            yield Server(http, "/v1/run", folder)
        process.terminate()
        process.wait(60)
        process.stderr.close()
        return
    store = ("--store", _database(request)) if request.param == "postgres" else ()
    platform = PlatformProcess(project, folder / "data", *store)
    yield Server(platform.http, "/v1/local/probe", folder)
    platform.close()


def _database(request: pytest.FixtureRequest) -> str:
    name = "three_ways"
    postgres = request.getfixturevalue("postgres_server")
    postgres.psql(f"create database {name}")
    return str(postgres.get_uri(name))


@pytest.mark.parametrize(
    ("function", "payload", "expected"),
    [
        ("echo", {"text": "ä"}, {"status": "succeeded", "output": "ä"}),
        ("echo", {"txt": "x"}, {"status": "succeeded", "output": "", "warnings": "/txt"}),
        ("echo", {"text": 5}, {"status": "failed", "code": "validation", "http": 400, "detail": "payload.text: expected str, got int."}),
        ("refuse", {}, {"status": "failed", "code": "validation", "http": 400, "detail": "text is empty"}),
        ("brief", {"seconds": 30}, {"status": "failed", "code": "timeout", "http": 504, "detail": "timed out after 1000 ms"}),
        ("progress", {"times": 3}, {"status": "succeeded", "output": "done"}),
    ],
)
def test_a_run_ends_in_the_same_way(server: Server, function: str, payload: object, expected: dict[str, object]) -> None:
    run = server.run(function, payload)
    found: dict[str, object] = {"status": run["status"]}
    if run.get("output") is not None:
        found["output"] = run["output"]["text"]
    if run.get("warnings"):
        found["warnings"] = run["warnings"][0]["pointer"]
    if error := run.get("error"):
        found |= {"code": error["code"], "http": error["status"], "detail": error["detail"]}
    assert found == expected, run
    assert run["function"] == function
    assert run["events_url"] == f"/v1/runs/{run['id']}/events"
    assert server.invoke(function, payload).status_code == expected.get("http", 200)


@pytest.mark.parametrize("kind", ["text/event-stream", "application/x-ndjson"])
def test_a_stream_says_the_same(server: Server, kind: str) -> None:
    with server.http.stream("POST", f"{server.path}/count", json={"payload": {"times": 5}}, headers={"accept": kind}) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith(kind)
        if kind == "text/event-stream":
            events = [(name, data) for _, name, data in read_events(answer)]
        else:
            events = [(line["event"], line["data"]) for line in map(json.loads, filter(None, answer.iter_lines()))]
    told = [(name, data) for name, data in events if name != "status"]
    words = [data["status"] for name, data in events if name == "status"]
    assert words == sorted(words, key=["queued", "starting", "running"].index)
    assert told[:-1] == [("output", {"number": number}) for number in range(5)]
    assert (told[-1][0], told[-1][1]["status"]) == ("done", "succeeded")


def test_a_reader_that_comes_later_reads_the_same(server: Server) -> None:
    run = server.run("count", {"times": 20})
    with server.http.stream("GET", run["events_url"], headers={"accept": "text/event-stream"}) as answer:
        events = [event for event in read_events(answer) if event[1] == "output"]
    assert [data["number"] for _, _, data in events] == list(range(20))
    with server.http.stream("GET", run["events_url"], headers={"last-event-id": events[9][0]}) as answer:
        assert [data["number"] for _, name, data in read_events(answer) if name == "output"] == list(range(10, 20))


def test_a_cancel_ends_a_run(server: Server) -> None:
    answer = server.invoke("sleep", {"seconds": 60}, {"prefer": "respond-async"})
    location = answer.headers["location"]
    while server.http.get(location).json()["status"] not in ("running", "canceled"):
        pass
    assert server.http.post(f"{location}/cancel").status_code == 200
    run = server.http.get(location, params={"wait": 60}).json()
    assert (run["status"], run["error"]["code"]) == ("canceled", "canceled")


def test_a_key_is_one_run(server: Server) -> None:
    key = {"idempotency-key": "once", "prefer": "respond-async"}
    first = server.invoke("echo", {"text": "a"}, key)
    assert server.invoke("echo", {"text": "a"}, key).headers["location"] == first.headers["location"]
    other = server.invoke("echo", {"text": "b"}, key)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")


def test_files_and_etags(server: Server) -> None:
    raw = server.invoke("save", {"text": "raw"}, {"accept": "text/plain"})
    assert (raw.status_code, raw.text, raw.headers["content-type"].partition(";")[0]) == (200, "raw", "text/plain")
    run = server.run("save", {"text": "kept"})
    saved = run["output"]["file"]
    assert saved["size_bytes"] == 4
    assert (saved["mime_type"], saved["ref"]) == ("text/plain", f"runs/{run['id']}/outputs/note.txt")
    answer = server.http.get(f"/v1/runs/{run['id']}")
    assert server.http.get(f"/v1/runs/{run['id']}", headers={"if-none-match": answer.headers["etag"]}).status_code == 304


def test_a_file_that_the_output_names_by_its_ref(server: Server) -> None:
    """As the public README saves one: the output holds `asset.ref`."""
    raw = server.invoke("save-and-name", {"text": "raw"}, {"accept": "text/plain"})
    assert (raw.status_code, raw.text, raw.headers["content-type"].partition(";")[0]) == (200, "raw", "text/plain")
    run = server.run("save-and-name", {"text": "kept"})
    ref = f"runs/{run['id']}/outputs/note.txt"
    assert run["output"]["text"] == ref
    (file,) = run["files"]
    assert (file["ref"], file["mime_type"]) == (ref, "text/plain")
    assert server.http.get(file["url"]).text == "kept"


def test_a_file_is_read_under_conditions(server: Server) -> None:
    path = server.run("save", {"text": "0123456789"})["files"][0]["url"]
    whole = server.http.get(path)
    etag, modified, before = whole.headers["etag"], whole.headers["last-modified"], "Mon, 01 Jan 2001 00:00:00 GMT"
    for headers, status, text in (
        ({"range": "bytes=2-4"}, 206, "234"),
        ({"range": "bytes=-3"}, 206, "789"),
        ({"range": "lines=1-2"}, 200, "0123456789"),
        ({"range": "bytes=2-4", "if-range": etag}, 206, "234"),
        ({"range": "bytes=2-4", "if-range": modified}, 206, "234"),
        ({"range": "bytes=2-4", "if-range": '"other"'}, 200, "0123456789"),
        ({"range": "bytes=2-4", "if-range": f"W/{etag}"}, 200, "0123456789"),
        ({"range": "bytes=20-", "if-range": '"other"'}, 200, "0123456789"),
        ({"range": "bytes=20-"}, 416, ""),
        ({"range": "bytes=20-", "if-range": etag}, 416, ""),
        ({"if-none-match": f'"x", W/{etag}'}, 304, ""),
        ({"if-none-match": '"x"', "if-modified-since": modified}, 200, "0123456789"),
        ({"if-modified-since": modified}, 304, ""),
        ({"if-modified-since": before}, 200, "0123456789"),
        ({"if-match": '"x"'}, 412, ""),
        ({"if-match": etag, "if-unmodified-since": before}, 200, "0123456789"),
        ({"if-unmodified-since": before}, 412, ""),
        ({"if-unmodified-since": "when I was young"}, 200, "0123456789"),
    ):
        answer = server.http.get(path, headers=headers)
        assert (answer.status_code, answer.text if status < 400 else "") == (status, text), (headers, answer.text)
        if status == 304:
            assert (answer.headers["etag"], {"content-length", "content-type"} & answer.headers.keys()) == (etag, set())
    head = server.http.head(path, headers={"range": "bytes=2-4"})
    assert (head.status_code, head.headers["content-length"], head.headers["accept-ranges"]) == (200, "10", "bytes"), "ranges are for GET"


def test_the_head_of_a_run_and_of_its_events_waits_for_nothing(server: Server) -> None:
    location = server.invoke("sleep", {"seconds": 60}, {"prefer": "respond-async"}).headers["location"]
    for path, kind in ((location, "application/json"), (f"{location}/events", "text/event-stream")):
        answer = server.http.head(path, timeout=20)
        assert (answer.status_code, answer.headers["content-type"].partition(";")[0], answer.content) == (200, kind, b"")
    assert server.http.get(location).json()["status"] != "succeeded"
    assert server.http.post(f"{location}/cancel").status_code == server.http.post(f"{location}/cancel").status_code == 200


@pytest.mark.parametrize(
    ("prefer", "status", "applied"),
    [
        ("respond-async", 202, "respond-async"),
        ("Respond-Async; foo=bar", 202, "respond-async"),
        ("respond-async, wait=30", 200, "respond-async, wait=30"),
        ("WAIT = 30", 200, "wait=30"),
        ('wait="30"; x', 200, "wait=30"),
        ("wait", 200, "wait=60"),
        ("wait=30, wait=0", 200, "wait=30"),
        ('note="a, respond-async", handling=lenient', 200, None),
        ("wait=-1", 200, None),
        (", ;;", 200, None),
    ],
)
def test_preferences_are_kept_and_told(server: Server, prefer: str, status: int, applied: str | None) -> None:
    answer = server.invoke("echo", {"text": "x"}, {"prefer": prefer})
    assert (answer.status_code, answer.headers.get("preference-applied")) == (status, applied), answer.text


def test_several_headers_are_one_list_of_preferences(server: Server) -> None:
    headers = [("prefer", "handling=strict"), ("prefer", "wait=0"), ("prefer", "wait=50")]
    answer = server.http.post(f"{server.path}/sleep", json={"payload": {"seconds": 60}}, headers=headers)
    assert (answer.status_code, answer.headers["preference-applied"]) == (202, "wait=0")
    assert server.http.post(f"{answer.headers['location']}/cancel").status_code == 200


def test_the_only_file_comes_with_the_headers_of_its_run(server: Server) -> None:
    headers = {"accept": "image/*", "prefer": "wait=50", "range": "bytes=0-1", "if-none-match": "*"}
    answer = server.invoke("picture", {}, headers)
    assert (answer.status_code, answer.content[:4]) == (200, b"\x89PNG"), "neither ranges nor conditions are for POST"
    assert answer.headers["preference-applied"] == "wait=50"
    location = answer.headers["location"]
    assert location == f"/v1/runs/{answer.headers['x-run-id']}"
    assert server.http.get(location).json()["status"] == "succeeded"


def test_what_is_wrong_is_said_in_the_same_words(server: Server) -> None:
    unknown = server.invoke("ecko", {})
    assert (unknown.status_code, unknown.json()["error"]) == (404, "unknown_function")
    assert "Did you mean 'echo'" in unknown.json()["detail"]
    for path, params, status, code in (
        ("/v1/runs/nothing", {}, 404, "not_found"), ("/v1/runs", {"status": "runing"}, 400, "validation"), ("/v1/nowhere", {}, 404, "not_found"),
    ):  # fmt: skip
        answer = server.http.get(path, params=params)
        assert (answer.status_code, answer.json()["code"], answer.json()["type"]) == (status, code, "about:blank"), answer.text
        assert answer.headers["content-type"] == "application/problem+json"
    for body in (b"{", b"\xff", b'{"x":' + b"[" * 100_000):
        answer = server.http.post(f"{server.path}/echo", content=body, headers={"content-type": "application/json"})
        assert (answer.status_code, answer.json()["code"], answer.json()["error"]) == (400, "invalid_json", "invalid_json"), answer.text
    assert server.http.get("/livez").status_code == server.http.get("/readyz").status_code == 200
    assert server.http.get("/livez", headers={"host": "evil.example"}).status_code == 421


FORM = {"content-type": "multipart/form-data; boundary=B"}
FIELD = b'--B\r\ncontent-disposition: form-data; name="text"\r\n\r\nwhole\r\n'
FILE = b'--B\r\ncontent-disposition: form-data; name="file"; filename="f"\r\ncontent-type: text/plain\r\n\r\n' + b"x" * 5000 + b"\r\n"
WHOLE = FIELD + FILE + b"--B--\r\n"


def test_a_form_that_is_cut_off_runs_nothing(server: Server) -> None:
    def runs() -> int:
        return len(server.http.get("/v1/runs", params={"function": "echo"}).json()["data"])

    before = runs()
    ends = [0, 1, 3, 20, len(FIELD) - 9, len(FIELD) - 2, len(FIELD), len(FIELD) + 50, len(FIELD) + 3000, len(WHOLE) - 6, len(WHOLE) - 3]
    for end in ends:
        answer = server.http.post(f"{server.path}/echo", content=WHOLE[:end], headers=FORM)
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_multipart"), (end, answer.text)
        assert answer.headers["content-type"] == "application/problem+json"
    assert runs() == before
    assert server.files() == 0
    for end in (len(WHOLE) - 2, len(WHOLE)):  # the closing delimiter is there; what follows it means nothing
        answer = server.http.post(f"{server.path}/echo", content=WHOLE[:end], headers=FORM)
        assert (answer.status_code, answer.json()["output"]["text"]) == (200, "whole"), answer.text


def test_texts_of_a_form_that_cannot_be_read_are_said(server: Server) -> None:
    for charset, text in (("unicode_escape", b"\\ud800"), ("utf-7", b"+2AA-"), ("undefined", b"x")):
        body = FIELD.replace(b"whole", text) + b"--B--\r\n"
        answer = server.http.post(
            f"{server.path}/echo", content=body, headers={"content-type": f"{FORM['content-type']}; charset={charset}"}
        )
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_multipart"), (charset, answer.text)


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"", 400, "the body is empty; expected a JSON object"),
        (b'{"text":"a","text":"b"}', 400, "the key at /text is given twice"),
        (b'{"payload":{"text":"a","text" : "b"}}', 400, "the key at /payload/text is given twice"),
        (b'{"payload":{"text":"a"},"payload":{}}', 400, "the key at /payload is given twice"),
        (b'{"payload":{"times":1e999}}', 400, ""),
        (b'{"payload":{},"tiemout_s":1}', 400, "unknown option 'tiemout_s'"),
        (b'{"payload":[1]}', 400, ""),
        (b"[1]", 400, ""),
        (b'{"payload":{"text":"\\ud800"}}', 400, ""),
        (b'{"payload":{"text":"a","tetx":"b"}}', 200, "unknown field 'tetx'"),
        (b'{"text":"a","tetx":"b"}', 200, "unknown field 'tetx'"),
    ],
)
def test_a_body_means_the_same(server: Server, body: bytes, status: int, words: str) -> None:
    answer = server.http.post(f"{server.path}/echo", content=body)
    assert (answer.status_code, words in answer.text) == (status, True), answer.text


def test_a_field_of_a_form_is_given_once(server: Server) -> None:
    for part in (b'{"text":"a","text":"b"}', b'{"payload":{"text":"a","text":"b"}}', b"[" * 100_000, b"{"):
        body = b'--B\r\ncontent-disposition: form-data; name="payload"\r\n\r\n' + part + b"\r\n--B--\r\n"
        answer = server.http.post(f"{server.path}/echo", content=body, headers=FORM)
        assert (answer.status_code, "part 'payload'" in answer.json()["detail"]) == (400, True), answer.text


@pytest.mark.parametrize(
    "body",
    [
        b'{"text":"a","text":"b"}',
        b'{"payload":{"text":"a","text" : "b"}}',
        b'{"payload":"a","payload":"b"}',
        b'{"text":"\\u0022:","text":"b"}',
        b'{"folder":"x","seconds":1,"te\\u0078t":"a","text":"b"}',
        b'{"text":"a","times":99999999999999999999999,"text":"b"}',
    ],
)
def test_a_text_with_a_key_twice_never_becomes_a_run(server: Server, body: bytes) -> None:
    before = len(server.http.get("/v1/runs").json()["data"])
    answer = server.http.post(f"{server.path}/echo", content=body)
    assert (answer.status_code, answer.headers["content-type"], answer.json()["error"]) == (
        400,
        "application/problem+json",
        "duplicate_key",
    )
    assert len(server.http.get("/v1/runs").json()["data"]) == before


@pytest.mark.parametrize("value", [b'"text"', b"5", b"null", b"true"])
def test_a_field_payload_that_holds_no_object_is_one_of_the_payload(server: Server, value: bytes) -> None:
    answer = server.http.post(f"{server.path}/echo", content=b'{"payload":' + value + b',"text":"bare"}')
    assert (answer.status_code, answer.json()["output"]["text"]) == (200, "bare"), answer.text
    run_id = answer.json().get("run_id") or answer.json()["id"]
    assert [each["pointer"] for each in server.http.get(f"/v1/runs/{run_id}").json()["warnings"]] == ["/payload"]


@pytest.mark.parametrize("key", ["", "x" * 256, "a\u00e9", "a\tb"])
def test_a_key_that_cannot_be_kept_is_refused(server: Server, key: str) -> None:
    answer = server.http.post(f"{server.path}/echo", json={}, headers={"idempotency-key": key.encode("latin-1")})
    assert (answer.status_code, "Idempotency-Key" in answer.json()["detail"]) == (400, True), answer.text
