"""Publishing and promoting on a running platform: how long until new code answers, and what callers notice of 50 moves of a tag.

    python gen-orchestrator/benchmarks/releases.py [--rounds 5] [--moves 50] [--rate 200]

A changed hello is published (its environment is there already) and called by its release: `publish to answer`. Then its tag is moved to and
fro while requests come at a steady rate, whoever answers them: each must succeed, and say one of the two texts. `promote to answer` is the time
from the answer to the move until the first run that was accepted after it has its result of the new code.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx

COZYCTL = Path(sys.executable).with_name("cozyctl")
CODE = """\
import msgspec
from gen_worker import ActionContext, worker_function

class Input(msgspec.Struct):
    pass

class Output(msgspec.Struct):
    text: str

@worker_function()
def greet(ctx: ActionContext, payload: Input) -> Output:
    return Output("{text}")
"""
TAG = "/v1/endpoints/local/hello/functions/greet/tags/prod"


def write_project(folder: Path, text: str) -> None:
    (folder / "src" / "hello").mkdir(parents=True, exist_ok=True)
    (folder / "cozy.toml").write_text('schema_version = 1\nname = "hello"\nmain = "hello.main"\ngen_worker = ">=0.2.0,<0.3.0"\n')
    (folder / "src" / "hello" / "__init__.py").write_text("")
    (folder / "src" / "hello" / "main.py").write_text(CODE.format(text=text))


def publish(folder: Path, url: str) -> str:
    done = subprocess.run(
        [str(COZYCTL), "publish", "--folder", str(folder), "--json"], env={**os.environ, "COZY_URL": url}, capture_output=True, check=True
    )
    return str(json.loads(done.stdout)["release_id"])


async def answered(http: httpx.AsyncClient, name: str) -> str:
    answer = await http.post(f"/v1/local/hello/{name}", json={"payload": {}})
    answer.raise_for_status()
    return str(answer.json()["output"]["text"])


async def moves(url: str, releases: list[str], count: int, rate: float) -> dict[str, Any]:
    """Move the tag to and fro while requests come."""
    limits = httpx.Limits(max_connections=64)
    async with httpx.AsyncClient(base_url=url, timeout=60, limits=limits, trust_env=False) as http:
        outcomes: list[str] = []
        stop = asyncio.Event()

        async def one() -> None:
            try:
                outcomes.append(await answered(http, "greet"))
            except httpx.HTTPError as exc:
                outcomes.append(f"failed: {exc!r}")

        async def callers() -> None:
            began_s, sent = time.perf_counter(), 0
            async with asyncio.TaskGroup() as tasks:
                while not stop.is_set():
                    while sent < (time.perf_counter() - began_s) * rate:
                        tasks.create_task(one())
                        sent += 1
                    await asyncio.sleep(0.002)

        for release_id in reversed(releases):  # both have workers then
            moved = await http.put(TAG, json={"release_id": release_id, "breaking": True})
            moved.raise_for_status()
        calling = asyncio.create_task(callers())
        took: list[float] = []
        for number in range(count):
            await asyncio.sleep(0.1)
            moved = await http.put(TAG, json={"release_id": releases[number % 2], "breaking": True})
            moved.raise_for_status()
            began_s = time.perf_counter()
            text = await answered(http, "greet")
            took.append(time.perf_counter() - began_s)
            assert text == f"text {number % 2}", (text, number)
        stop.set()
        await calling
    failed = [each for each in outcomes if each not in ("text 0", "text 1")]
    return {
        "moves": count,
        "runs": len(outcomes),
        "failed": len(failed),
        "examples": failed[:3],
        "promote_to_answer_p50_ms": round(statistics.median(took) * 1000, 1),
        "promote_to_answer_max_ms": round(max(took) * 1000, 1),
    }


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--moves", type=int, default=50)
    parser.add_argument("--rate", type=float, default=200.0)
    options = parser.parse_args()
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory(prefix="gen-orchestrator-bench-") as name:
        folder = Path(name)
        write_project(folder / "hello", "first")
        line = [str(COZYCTL), "up", str(folder / "hello"), "--listen", "127.0.0.1:0", "--data", str(folder / "data"), "--json"]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=log, text=True)
        try:
            assert process.stdout is not None
            url = json.loads(process.stdout.readline())["url"]
            releases, took = [], []
            async with httpx.AsyncClient(base_url=url, timeout=60, trust_env=False) as http:
                for number in range(options.rounds):
                    write_project(folder / "other", f"text {number % 2}" if number < 2 else f"text {number}")
                    began_s = time.perf_counter()
                    release = await asyncio.to_thread(publish, folder / "other", url)
                    text = await answered(http, f"greet@{release}")
                    took.append(time.perf_counter() - began_s)
                    assert text.startswith("text"), text
                    releases.append(release)
            print(f"publish to answer: median {statistics.median(took):.2f} s, worst {max(took):.2f} s of {len(took)}")
            print(json.dumps(await moves(url, releases[:2], options.moves, options.rate)))
        finally:
            process.terminate()
            process.wait(60)


if __name__ == "__main__":
    asyncio.run(main())
