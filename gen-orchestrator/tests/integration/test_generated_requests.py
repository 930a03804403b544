"""Requests that nobody would write, made from our own OpenAPI document: none may be a server error."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from platform_process import PlatformProcess

CASES = os.environ.get("GENERATED_CASES", "5")  # for each operation and phase; `make fuzz` asks for more
SEED = os.environ.get("GENERATED_SEED", "1")


def test_no_generated_request_is_a_server_error(platform: PlatformProcess) -> None:
    pytest.importorskip("schemathesis")
    program = Path(sys.executable).parent / "schemathesis"
    command = [str(program), "run", f"{platform.url}/openapi.json", "--checks", "not_a_server_error", "--max-examples", CASES, "--no-color"]
    # Functions whose work is to fail, to take long or to kill their worker answer so; all others are asked for.
    command += ["--exclude-path-regex", "crash|drain|sleep|:dev|one-at|broken|brief|/later|deaf|stuck", "--phases", "coverage,fuzzing"]
    command += ["--seed", SEED, "--request-timeout", "20"]
    found = subprocess.run(command, capture_output=True, text=True, timeout=90 + 20 * int(CASES), check=False)
    print(found.stdout[-1500:])
    assert found.returncode == 0, found.stdout[-6000:] + found.stderr[-1000:]
    assert platform.http.get("/livez").status_code == 200
    assert platform.invoke("echo", {"text": "still"}).json()["output"]["text"] == "still"
