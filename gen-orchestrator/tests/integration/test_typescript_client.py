"""clients/typescript: its own tests, with node's test runner, against a real platform and a real dev runner."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

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


def test_its_tests_pass(built: Path, url: str) -> None:
    env = {**os.environ, "COZY_TEST_URL": url, "NO_COLOR": "1"}
    found = subprocess.run(
        ["node", "--test", "--test-reporter=spec", str(built)], env=env, capture_output=True, text=True, timeout=250, check=False
    )
    assert found.returncode == 0, found.stdout[-6000:] + found.stderr[-2000:]
    assert "skipped 0" in found.stdout
