"""Code that changes while the runner serves."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
from tests.waiting import until

CODE = """
class In(msgspec.Struct):
    prompt: str = ""

class Out(msgspec.Struct):
    text: str

@worker_function
def first(ctx: ActionContext, payload: In) -> Out:
    return Out("one")
"""


def test_changes_are_taken_up_and_broken_code_is_not(project: Callable[..., Path], tmp_path: Path) -> None:
    folder = project(CODE)
    main = next(folder.rglob("main.py"))
    log = tmp_path / "log"
    command = [
        sys.executable,
        "-c",
        "from gen_worker.cli.main import main; main()",
        "dev",
        "--listen",
        "127.0.0.1:0",
        "--outputs",
        str(tmp_path / "o"),
    ]
    with log.open("wb") as file:
        process = subprocess.Popen(command, cwd=folder, stderr=file)
    try:
        until(lambda: "listening on" in log.read_text())
        url = re.search(r"http://\S+", log.read_text())[0]
        text = main.read_text()
        assert run(url, "first") == "one"
        main.write_text(text.replace('"one"', '"two"'))
        until(lambda: run(url, "first") == "two")
        main.write_text(text.replace("def first", "def first(:"))
        until(lambda: "reload.failed" in log.read_text())
        assert run(url, "first") == "two"
        refused = httpx.post(f"{url}/v1/run/renamed", json={}, trust_env=False).json()
        assert "SyntaxError: invalid syntax\n    def first(:" in refused["hint"]
        main.write_text(text.replace("def first", "def renamed"))
        until(lambda: run(url, "renamed") == "one")
        paths = httpx.get(f"{url}/openapi.json", trust_env=False).json()["paths"]
        assert [path for path in paths if path.startswith("/v1/run/")] == ["/v1/run/renamed"]
        assert "hint" not in httpx.post(f"{url}/v1/run/first", json={}, trust_env=False).json()
        assert not (tmp_path / "o").exists()  # nothing was saved
    finally:
        process.terminate()
        assert process.wait(60) == 0


def run(url: str, function: str) -> str | None:
    answer = httpx.post(f"{url}/v1/run/{function}", json={}, trust_env=False).json()
    return answer["output"]["text"] if answer.get("output") else None
