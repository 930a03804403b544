"""docs/client.md: its snippets run unchanged, against a platform and a project from `cozyctl init`."""

import re
import subprocess
from pathlib import Path

import pytest
from platform_process import COZYCTL, PlatformProcess

PAGE = Path(__file__).parents[3] / "docs" / "client.md"

HANDLER = """
from gen_worker import RealtimeSocket, worker_websocket

@worker_websocket()
async def measure(ctx: ActionContext, socket: RealtimeSocket) -> None:
    async for frame in socket.iter_bytes():
        await socket.send_json({"bytes": len(frame)})
"""


def test_the_snippets_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    subprocess.run([str(COZYCTL), "init", "my-worker"], cwd=tmp_path, check=True, capture_output=True)
    with next((tmp_path / "my-worker" / "src").glob("*/main.py")).open("a") as code:
        code.write(HANDLER)
    platform = PlatformProcess(tmp_path / "my-worker", tmp_path / "data")
    monkeypatch.setenv("COZY_URL", platform.url)
    monkeypatch.chdir(tmp_path)
    snippets = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(snippets) >= 4
    try:
        exec("\n".join(snippets), {"__name__": "snippets"})
    finally:
        platform.close()
    printed = capsys.readouterr().out
    assert "world" in printed
    assert "validation" in printed
    assert "{'bytes': 5}\n" in printed
    assert '{"bytes":4}\n' in printed
