"""The wheel in an empty environment: it installs, imports quickly, and its command works."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from tests.conftest import ROOT


def test_the_wheel_works_where_nothing_else_is_installed(tmp_path: Path) -> None:
    pytest.importorskip("hatchling")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", str(tmp_path), str(ROOT)], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    python = str(tmp_path / "venv/bin/python")
    constraints = ["-c", str(ROOT / "constraints.txt")]
    subprocess.run([python, "-m", "pip", "--disable-pip-version-check", "-q", "install", *constraints, str(wheel)], check=True)
    light = "import sys, gen_worker; print([n for n in ('torch', 'grpc', 'httpcore', 'starlette', 'uvicorn') if n in sys.modules])"
    assert subprocess.run([python, "-c", light], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    cozyctl = str(tmp_path / "venv/bin/cozyctl")
    subprocess.run([cozyctl, "init", str(tmp_path / "kite"), "--json"], check=True, capture_output=True)
    run = subprocess.run(
        [cozyctl, "run", "generate", "-i", "prompt=world", "--json"], cwd=tmp_path / "kite", capture_output=True, text=True, check=True
    )
    assert json.loads(run.stdout)["output"] == {"text": "Hello, world!"}
    check_worker(python, tmp_path / "kite")
    optional = (
        "import importlib.util as u; print([n for n in ('torch', 'jwt', 'cryptography', 'pytest', 'huggingface_hub') if u.find_spec(n)])"
    )
    assert subprocess.run([python, "-c", optional], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def check_worker(python: str, folder: Path) -> None:
    """The production worker and the mock orchestrator run on the base install."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    env = {**os.environ, "SCHEDULER_PUBLIC_ADDR": address, "WORKER_JWT": "t", "RECONNECT_DELAY": "0.1", "RECONNECT_JITTER_SECONDS": "0"}
    worker = subprocess.Popen([python, "-m", "gen_worker.entrypoint"], cwd=folder, env=env, stderr=subprocess.DEVNULL)
    try:
        mock = [python, "-m", "gen_worker.testing.mock_orchestrator", "--listen", address, "--run", "generate"]
        run = subprocess.run([*mock, "--payload-json", '{"prompt":"kite"}'], capture_output=True, text=True, timeout=60, check=True)
        assert '"text": "Hello, kite!"' in run.stdout
    finally:
        worker.terminate()
        assert worker.wait(60) == 0
