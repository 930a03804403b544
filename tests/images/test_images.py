"""Images built by the root Dockerfile, and what runs inside: `make images`."""

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from gen_worker.testing.loopback import LoopbackScheduler

ROOT = Path(__file__).parents[2]
BASE = "ghcr.io/astral-sh/uv:python3.11-bookworm-slim"
ENV = {**os.environ, "BUILDAH_ISOLATION": "chroot"}
BUILDAH = ("buildah", "--storage-driver", "vfs")
Build = Callable[[Path, str], subprocess.CompletedProcess[str]]


def buildah(*arguments: str, timeout_s: float = 240) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*BUILDAH, *arguments], env=ENV, capture_output=True, text=True, timeout=timeout_s, check=False)


@pytest.fixture(scope="session", autouse=True)
def base() -> None:
    if not os.environ.get("IMAGE_TESTS"):
        pytest.skip("images are built by `make images`")
    if shutil.which("buildah") is None or buildah("images", "-q", BASE).returncode:
        pytest.skip("buildah or its base image is not here; scripts/image-base says why")


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    built = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(folder), str(ROOT)], capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stderr
    return next(folder.glob("gen_worker-*.whl"))


@pytest.fixture
def build(wheel: Path) -> Iterator[Build]:
    names = []

    def build_now(folder: Path, name: str) -> subprocess.CompletedProcess[str]:
        shutil.copy2(wheel, folder)
        names.append(name)
        arguments = ("--build-arg", "PYTHON_VERSION=3.11", "--build-arg", f"GEN_WORKER_SPEC={wheel.name}")
        return buildah("build", "--layers", "--pull-never", "-t", name, *arguments, "-f", str(ROOT / "Dockerfile"), str(folder))

    yield build_now
    for name in names:
        buildah("rmi", "--force", name)


def project(tmp_path: Path, name: str) -> Path:
    return Path(shutil.copytree(ROOT / "examples" / name, tmp_path / name))


def layers(name: str) -> list[tuple[str, int]]:
    """Digest and bytes of each layer."""
    manifest = json.loads(json.loads(buildah("inspect", name).stdout)["Manifest"])
    return [(layer["digest"], layer["size"]) for layer in manifest["layers"]]


@asynccontextmanager
async def inside(image: str, *command: str, env: dict[str, str]) -> AsyncIterator[asyncio.subprocess.Process]:
    """A command in a container of this image, ended with the block."""
    container = buildah("from", "--pull-never", image).stdout.strip()
    options = [option for key, value in env.items() for option in ("--env", f"{key}={value}")]
    process = await asyncio.create_subprocess_exec(
        *BUILDAH, "run", *options, container, "--", *command, env=ENV, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        await asyncio.wait_for(process.communicate(), 20)
        buildah("rm", container)


async def test_an_image_of_hello_serves_and_a_change_of_code_is_one_small_layer(build: Build, tmp_path: Path) -> None:
    folder = project(tmp_path, "hello")
    built = build(folder, "gen-worker-test-hello")
    assert built.returncode == 0, built.stderr
    base_layers, first = layers(BASE), layers("gen-worker-test-hello")
    assert sum(size for _, size in first[len(base_layers) :]) < 60e6

    config = json.loads(buildah("inspect", "gen-worker-test-hello").stdout)["OCIv1"]["config"]
    assert config["Entrypoint"] == ["python", "-m", "gen_worker.entrypoint"]
    async with LoopbackScheduler() as scheduler:
        env = {"SCHEDULER_PUBLIC_ADDR": scheduler.address, "WORKER_JWT": "test-token"}
        async with inside("gen-worker-test-hello", *config["Entrypoint"], env=env):
            await scheduler.worker(30)
            assert await scheduler.call("generate", {"prompt": "image"}) == {"text": "Hello, image!"}

    code = folder / "src/hello/main.py"
    code.write_text(code.read_text().replace("Hello, ", "Goodbye, "))
    assert build(folder, "gen-worker-test-hello").returncode == 0
    changed = [size for (digest, size), (old, _) in zip(layers("gen-worker-test-hello"), first, strict=True) if digest != old]
    assert len(changed) == 1
    assert changed[0] < 1e6


async def test_the_dev_runner_in_an_image(build: Build, tmp_path: Path) -> None:
    built = build(project(tmp_path, "stream"), "gen-worker-test-stream")
    assert built.returncode == 0, built.stderr
    command = ("python", "-m", "gen_worker.testing.http_runner", "--listen", "127.0.0.1:0", "--outputs", "/outputs")
    async with inside("gen-worker-test-stream", *command, env={}) as process:
        assert process.stdout is not None
        async with asyncio.timeout(30):
            while not (found := re.search(rb"listening on (http://\S+)", await process.stdout.readline())):
                assert process.returncode is None
        url = found[1].decode()
        answer = await asyncio.to_thread(lambda: httpx.post(f"{url}/v1/run/words", json={"payload": {"prompt": "in an image"}}, timeout=10))
        assert answer.json()["success"]
        assert "image" in answer.text


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (("main = ", 'main = "nothing.here"\n#'), "nothing"),
        (('gen_worker = ">=0.2.0,<0.3.0"', 'gen_worker = ">=9"'), ">=9"),
    ],
)
def test_a_project_that_cannot_serve_builds_no_image(build: Build, tmp_path: Path, change: tuple[str, str], reason: str) -> None:
    folder = project(tmp_path, "hello")
    toml = folder / "cozy.toml"
    toml.write_text(toml.read_text().replace(*change))
    built = build(folder, "gen-worker-test-broken")
    assert built.returncode != 0
    assert reason in built.stdout + built.stderr
