"""Functions as tools, called by the official MCP client, in the dev runner."""

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from mcp.client.client import Client
from mcp.shared.exceptions import MCPError
from tests.conftest import Runner, write_project
from tests.runner_project import CODE

MORE = """
class Picture(msgspec.Struct):
    image: Asset

@worker_function()
def draw(ctx: ActionContext, payload: In) -> Picture:
    for step in range(3):
        ctx.progress(step / 2, stage=f"step {step}")
    return Picture(ctx.save_bytes(f"runs/{ctx.run_id}/outputs/a.png", b"\\x89PNG" + payload.prompt.encode()))
"""


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    folder = tmp_path_factory.mktemp("mcp")
    found = Runner(write_project(folder / "project", CODE + MORE), folder / "outputs")
    yield found
    assert found.stop() == 0


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_functions_are_tools(runner: Runner, mode: str) -> None:
    async with Client(f"{runner.url}/mcp", mode=mode) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert "Give the prompt back." in (tools["echo"].description or "")
        assert tools["echo"].input_schema["properties"]["prompt"]["type"] == "string"
        assert tools["look"].input_schema["$defs"]["Asset"]["type"] == "string"
        said = await client.call_tool("echo", {"prompt": "a kite"})
        assert said.structured_content == {"text": "a kite"}
        assert (await client.call_tool("words", {"prompt": "a red kite"})).content[0].text == "aredkite"  # type: ignore[union-attr]
        seen = await client.call_tool("look", {"image": "data:text/plain,four"})
        assert seen.structured_content["text"].endswith("four")
        wrong = await client.call_tool("echo", {"n": "many"})
        assert wrong.is_error
        assert "/n: " in wrong.content[0].text  # type: ignore[union-attr]
        with pytest.raises(MCPError, match="no tool 'nothing'"):
            await client.call_tool("nothing", {})


async def test_progress_files_and_runs(runner: Runner) -> None:
    heard: list[Any] = []

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        heard.append((progress, total, message))

    async with Client(f"{runner.url}/mcp") as client:
        drawn = await client.call_tool("draw", {"prompt": "kite"}, progress_callback=on_progress)
        assert heard == [(0.0, 1.0, "step 0"), (0.5, 1.0, "step 1"), (1.0, 1.0, "step 2")]
        link: Any = drawn.content[1]
        assert (link.type, link.name, link.mime_type) == ("resource_link", "a.png", "image/png")
        assert httpx.get(str(link.uri), trust_env=False).content == b"\x89PNGkite"
        newest = (await client.list_resources()).resources[0]
        assert newest.title == "draw: succeeded"
        read = (await client.read_resource(str(newest.uri))).contents[0]
        assert json.loads(read.text)["status"] == "succeeded"  # type: ignore[union-attr]
        with pytest.raises(MCPError, match="no run"):
            await client.read_resource("run:///nothing")
    assert runner.http.get("/mcp").status_code == 405


async def test_a_client_that_goes_away_cancels_its_run(runner: Runner) -> None:
    def runs(status: str) -> int:
        return len(runner.http.get(f"/v1/runs?function=nap&status={status}").json()["data"])

    async with Client(f"{runner.url}/mcp") as client:
        calling = asyncio.create_task(client.call_tool("nap", {"seconds": 60}))
        await asyncio.to_thread(runner.until, lambda: runs("running") == 1)
        calling.cancel()
        await asyncio.wait([calling])
    await asyncio.to_thread(runner.until, lambda: runs("canceled") == 1)


def test_without_the_package_it_says_what_to_install(start_runner: Callable[..., Runner], tmp_path: Path) -> None:
    (tmp_path / "absent" / "mcp").mkdir(parents=True)
    (tmp_path / "absent" / "mcp" / "__init__.py").write_text("raise ModuleNotFoundError(\"No module named 'mcp'\", name='mcp')")
    runner = start_runner(write_project(tmp_path / "project", CODE), env={"PYTHONPATH": str(tmp_path / "absent")})
    answer = runner.http.post("/mcp", json={"jsonrpc": "2.0", "id": 1, "method": "tools/list"})
    assert answer.status_code == 404
    assert "pip install 'mcp>=2.3'" in answer.json()["hint"]
