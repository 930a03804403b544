"""Images built by `cozyctl build` with buildah, and commands run inside them."""

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
BASE = "ghcr.io/astral-sh/uv:python3.12-bookworm-slim"
BUILDAH = tuple(os.environ.get("BUILDAH", "buildah").split())  # as scripts/image-base prints it
ENV = {**os.environ, "BUILDAH_ISOLATION": "chroot", "SOURCE_DATE_EPOCH": "1"}  # so that equal content has equal digests
ENTRYPOINT = ("python", "-m", "gen_worker.entrypoint")
if "vfs" in BUILDAH:  # which copies the whole image for every layer
    ENV["BUILDAH_LAYERS"] = "false"
Build = Callable[..., "BuildResult"]


class BuildResult:
    """What `cozyctl build --json` said."""

    def __init__(self, done: subprocess.CompletedProcess[str]) -> None:
        self.status = done.returncode
        self.log = done.stderr
        self.said: dict[str, Any] = json.loads(done.stdout)

    @property
    def name(self) -> str:
        assert self.status == 0, (self.said, self.log)
        return str(self.said["image"])


def buildah(*arguments: str, timeout_s: float = 240) -> str:
    done = subprocess.run([*BUILDAH, *arguments], env=ENV, capture_output=True, text=True, timeout=timeout_s, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="session", autouse=True)
def base() -> None:
    if "BUILDAH" not in os.environ:
        pytest.skip("images are built by `make images`")
    if shutil.which(BUILDAH[0]) is None or subprocess.run([*BUILDAH, "images", "-q", BASE], capture_output=True, check=False).returncode:
        pytest.skip("buildah or its base image is not here; scripts/image-base says why")


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    built = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(folder), str(ROOT)], capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stderr
    return next(folder.glob("gen_worker-*.whl"))


@pytest.fixture(scope="module")
def build(wheel: Path) -> Iterator[Build]:
    """`cozyctl build` of an example's copy, with this project's gen-worker: by the root Dockerfile, or by the example's own."""
    made: set[str] = set()

    def build_now(folder: Path, *options: str, own: bool = False, env: Mapping[str, str] = {}) -> BuildResult:
        shutil.copy2(wheel, folder)
        command = [
            sys.executable,
            "-c",
            "from gen_worker.cli.main import main; main()",
            "build",
            str(folder),
            "--json",
            "--engine",
            " ".join(BUILDAH),
        ]
        if own:
            project = folder / "pyproject.toml"
            if "tool.uv" not in project.read_text():
                project.write_text(f'{project.read_text()}\n[tool.uv.sources]\ngen-worker = {{ path = "{wheel.name}" }}\n')
        else:
            command += ["-f", str(ROOT / "Dockerfile"), "--build-arg", f"GEN_WORKER_SPEC={wheel.name}"]
        done = subprocess.run([*command, *options], env={**ENV, **env}, capture_output=True, text=True, timeout=300, check=False)
        result = BuildResult(done)
        made.add(str(result.said.get("id", "")))
        return result

    yield build_now
    for image in made - {""}:
        subprocess.run([*BUILDAH, "rmi", "--force", image.removeprefix("sha256:")], env=ENV, capture_output=True, check=False)


@pytest.fixture
def project(tmp_path: Path) -> Callable[[str], Path]:
    def copy(name: str) -> Path:
        return Path(shutil.copytree(ROOT / "examples" / name, tmp_path / name, ignore=shutil.ignore_patterns("outputs", ".venv")))

    return copy


def layers(name: str) -> list[tuple[str, int]]:
    """Digest and bytes of each layer."""
    manifest = json.loads(json.loads(buildah("inspect", "--type", "image", name))["Manifest"])
    return [(layer["digest"], layer["size"]) for layer in manifest["layers"]]


@asynccontextmanager
async def container(
    image: str, *command: str, env: Mapping[str, str] = {}, volumes: Mapping[Path, str] = {}
) -> AsyncIterator[asyncio.subprocess.Process]:
    """As `docker run -e ... -v ... IMAGE COMMAND` does: the image's entry point gets the command. Ended with the block."""
    made = buildah("from", "--pull-never", image).strip()
    options = [option for key, value in env.items() for option in ("--env", f"{key}={value}")]
    options += [option for path, inside in volumes.items() for option in ("--volume", f"{path}:{inside}")]
    process = await asyncio.create_subprocess_exec(
        *BUILDAH,
        "run",
        *options,
        made,
        "--",
        *ENTRYPOINT,
        *command,
        env=ENV,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        await asyncio.wait_for(process.communicate(), 60)
        buildah("rm", made)


@contextmanager
def torch_wheels() -> Iterator[str]:
    """A page with torch's CPU build, out of a folder that pip's find-links names."""
    asked = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False).stdout
    named = " ".join(re.findall(r"find-links='([^']+)", asked)).replace("\\n", " ").split()
    folder = next((path for path in map(Path, named) if list(path.glob("torch-2.13.0+cpu*"))), None)
    if folder is None:
        pytest.skip("no CPU build of torch in a folder that pip's find-links names")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietFiles, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()


class QuietFiles(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass
