"""The lines that `cozyctl dev` prints while it serves."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from tests.waiting import until

CODE = """
import logging
import sys
import warnings

class In(msgspec.Struct):
    n: int = 0

class Out(msgspec.Struct):
    text: str

@worker_function
def talk(ctx: ActionContext, payload: In) -> Out:
    print("printed by hand")
    logging.getLogger("mine").info("logged %d", payload.n)
    logging.getLogger("mine").info("a record %d", "that does not fit")
    print("printed to stderr", file=sys.stderr)
    sys.stdout.buffer.write(b"written as bytes\\n")
    sys.stdout.flush()
    warnings.warn("warned of")
    ctx.log("said by ctx", level="warning")
    if payload.n:
        raise ValueError("n is not 0")
    return Out("x")
"""


@pytest.mark.parametrize("as_json", [False, True])
def test_a_line_for_each_run_each_refusal_and_what_functions_say(project: Callable[..., Path], tmp_path: Path, as_json: bool) -> None:
    folder = project(CODE)
    out, err = tmp_path / "out", tmp_path / "err"
    command = [sys.executable, "-c", "from gen_worker.cli.main import main; main()", "dev", "--listen", "127.0.0.1:0", "--outputs", "o"]
    with out.open("wb") as stdout, err.open("wb") as stderr:
        process = subprocess.Popen([*command, *(["--json"] if as_json else [])], cwd=folder, stdout=stdout, stderr=stderr)
    try:
        until(lambda: "/docs" in err.read_text())
        url = re.findall(r"http://127\.0\.0\.1:\d+", err.read_text())[0]
        done = httpx.post(f"{url}/v1/run/talk", json={}, trust_env=False).json()["run_id"]
        failed = httpx.post(f"{url}/v1/run/talk", json={"n": 7}, trust_env=False).json()["run_id"]
        assert httpx.post(f"{url}/v1/run/tolk", json={}, trust_env=False).status_code == 404
        assert httpx.get(f"{url}/v1/runs/a%0aforged", trust_env=False).status_code == 404
        until(lambda: "forged" in err.read_text() and err.read_text().count("printed by hand") == 2)
    finally:
        process.terminate()
        assert process.wait(60) == 0
    lines = err.read_text().splitlines()
    assert out.read_text() == ""
    if not as_json:
        assert one(lines, done, "run.ended").endswith(f"run_id={done}")
        assert "status=succeeded" in one(lines, done, "run.ended")
        assert "n is not 0" in one(lines, failed, "run.ended")
        assert "Did you mean 'talk'?" in one(lines, "/v1/run/tolk")
        assert "said by ctx" in one(lines, done, "run.log")
        assert "logged 7" in one(lines, failed, "logged 7")
        assert not [line for line in lines if line.startswith("forged")]
        return
    found = [json.loads(line) for line in lines]
    ended = {each["run_id"]: each for each in found if each["event"] == "run.ended"}
    assert (ended[done]["function"], ended[done]["status"]) == ("talk", "succeeded")
    assert ended[done]["ms"] >= 0
    assert ended[failed]["error"] == "validation: n is not 0"
    assert [each["status"] for each in found if each["event"] == "request.refused"] == [404, 404]
    assert {"event": "print", "message": "printed by hand", "run_id": done, "function": "talk"}.items() <= one_of(
        found, "print", done
    ).items()
    for run_id in (done, failed):
        said = [each["message"] for each in found if each["event"] == "print" and each["run_id"] == run_id]
        assert said == ["printed by hand", "printed to stderr", "written as bytes"]
    assert next(each["logger"] for each in found if "warned of" in str(each.get("message"))) == "py.warnings"
    assert one_of(found, "run.log", failed)["message"] == "said by ctx"
    assert one_of(found, "logging", failed)["message"] == "logged 7"


RAW = """
import ctypes, os, subprocess, sys

class In(msgspec.Struct):
    pass

class Out(msgspec.Struct):
    text: str

os.write(1, b"at import\\n")

@worker_function()
def talk(ctx: ActionContext, payload: In) -> Out:
    os.write(1, b"by number 1\\n")
    os.write(2, b'{"by": "number 2"}\\n')
    print("by the first stdout", file=sys.__stdout__, flush=True)
    subprocess.run(["sh", "-c", "echo by a child; echo and its stderr >&2; printf 'no end of line'"])
    libc = ctypes.PyDLL(None)  # which keeps Python's lock
    for _ in range(2000):
        libc.write(2, b"x" * 99 + b"\\n", 100)
    os.write(2, b"\\xff\\x00 \\x1b[1m\\n" + b"y" * 25_000 + b"\\n")
    return Out("x")
"""


def test_what_is_written_to_the_descriptors_is_json_too(project: Callable[..., Path], tmp_path: Path) -> None:
    folder = project(RAW)
    out, err = tmp_path / "out", tmp_path / "err"
    command = [sys.executable, "-c", "from gen_worker.cli.main import main; main()", "dev", "--json", "--listen", "127.0.0.1:0"]
    with out.open("wb") as stdout, err.open("wb") as stderr:
        process = subprocess.Popen([*command, "--outputs", "o"], cwd=folder, stdout=stdout, stderr=stderr)
    try:
        until(lambda: "/docs" in err.read_text())
        url = re.findall(r"http://127\.0\.0\.1:\d+", err.read_text())[0]
        assert httpx.post(f"{url}/v1/run/talk", json={}, trust_env=False, timeout=60).status_code == 200
    finally:
        process.terminate()
        assert process.wait(60) == 0
    until(lambda: "y" * 5000 + '"}\n' in err.read_text())  # what was written last is read after our end
    assert out.read_text() == ""
    said = [each["message"] for each in map(json.loads, err.read_text().splitlines()) if each["event"] == "output"]
    texts = ["at import", "by number 1", '{"by": "number 2"}', "by the first stdout", "by a child", "and its stderr"]
    assert said[: len(texts)] == texts
    rest = said[len(texts) :]
    assert rest[:2000] == ["no end of line" + "x" * 99, *["x" * 99] * 1999]
    assert rest[2000:] == ["\ufffd\0 \x1b[1m", "y" * 10_000, "y" * 10_000, "y" * 5000]


def one_of(found: list[dict], event: str, run_id: str) -> dict:
    return next(each for each in found if each["event"] == event and each.get("run_id") == run_id)


def one(lines: list[str], *words: str) -> str:
    found = [line for line in lines if all(word in line for word in words)]
    assert len(found) == 1, lines
    return found[0]
