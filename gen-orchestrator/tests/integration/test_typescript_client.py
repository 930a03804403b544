"""clients/typescript: its own tests, with node's test runner, against a real platform and a real dev runner."""

import contextlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from realtime_served import dev_served, up_served

PACKAGE = Path(__file__).parents[3] / "clients" / "typescript"
TSC = PACKAGE / "node_modules" / "typescript" / "bin" / "tsc"

pytestmark = [
    pytest.mark.timeout(600),  # seconds of work; on a busy machine tsc alone may take a minute
    pytest.mark.skipif(
        shutil.which("node") is None or not TSC.exists(), reason="needs node, and in clients/typescript: npm ci --ignore-scripts"
    ),
]


@pytest.fixture(scope="module")
def built() -> Path:
    made = subprocess.run(
        ["node", str(TSC), "-p", "tsconfig.test.json"], cwd=PACKAGE, capture_output=True, text=True, timeout=250, check=False
    )
    assert made.returncode == 0, made.stdout
    return PACKAGE / "dist-test" / "test"


def passes(files: list[Path], **env: str) -> None:
    """Runs tests of the package. (Node has a WebSocket behind this flag from 20.10 on, and without it from 22 on.)"""
    found = subprocess.run(
        ["node", "--experimental-websocket", "--test", "--test-reporter=spec", *map(str, files)],
        env={**os.environ, **env, "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert found.returncode == 0, found.stdout[-6000:] + found.stderr[-2000:]
    assert "skipped 0" in found.stdout


def test_its_tests_pass(built: Path, url: str) -> None:
    passes([each for each in built.glob("*.test.js") if each.name != "session.test.js"], COZY_TEST_URL=url)


@pytest.mark.parametrize("where", ["up", "dev"])
def test_its_sessions_work(built: Path, where: str, tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        served = stack.enter_context(up_served(tmp_path))[0] if where == "up" else stack.enter_context(dev_served(tmp_path))
        passes([built / "session.test.js"], COZY_TEST_SESSIONS_URL=served.url)
