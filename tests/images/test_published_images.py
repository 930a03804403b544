"""`cozyctl publish` into images: the platform builds them, reads their manifests, and runs their workers in containers."""

import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gen_worker.project.dockerfile import ENTRYPOINT_LINE
from tests.blob_server import BlobServer
from tests.fake_hub import FakeHuggingFace, read_tree
from tests.images.conftest import BASE, BUILDAH, ENV, ROOT, buildah, layers, torch_wheels

pytestmark = pytest.mark.timeout(600)  # images are built
COZYCTL = (sys.executable, "-c", "from gen_worker.cli.main import main; main()")
Project = Callable[[str], Path]


class Platform:
    """`cozyctl up` with the container builder, over a project that has nothing to do with the images."""

    def __init__(self, folder: Path, hugging_face: str) -> None:
        self.folder = folder
        self.data = folder / "data"
        project = shutil.copytree(ROOT / "examples/stream", folder / "stream")
        self.env = {
            **ENV,
            "COZYCTL_ENGINE": " ".join(BUILDAH),
            "HOME": str(folder),
            "COZY_API_KEY": "cz_of-whoever-started-it",
            "HF_ENDPOINT": hugging_face,
        }
        options = ["--data", str(self.data), "--listen", "127.0.0.1:0", "--builder", "container", "--json"]
        self.before: list[str] = []
        self.before = self.containers()
        self._command = [*COZYCTL, "up", str(project), *options]
        self._log = (folder / "up.log").open("wb")
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(self._command, env=self.env, stdout=subprocess.PIPE, stderr=self._log)
        assert self.process.stdout is not None
        while line := self.process.stdout.readline():
            said = json.loads(line)
            if said["event"] == "ready":
                self.url = said["url"]
                return
        raise AssertionError((self.folder / "up.log").read_text()[-4000:])

    def verb(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        env = {name: value for name, value in os.environ.items() if name != "COZY_API_KEY"} | {"COZY_URL": self.url}
        return subprocess.run([*COZYCTL, *arguments], env=env, capture_output=True, text=True, timeout=900, check=False)

    def published(self, *arguments: str) -> dict[str, Any]:
        done = self.verb("publish", *arguments, "--json")
        build: dict[str, Any] = json.loads(done.stdout)
        assert build.get("status") == "succeeded", (build, self.verb("builds", "logs", build.get("build_id", "-")).stderr)
        return {**build, "release": self.http(f"/v1/releases/{build['release_id']}")}

    def http(self, path: str, body: object = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"content-type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as exc:
            return json.load(exc)

    def finished(self, path: str, payload: object) -> dict[str, Any]:
        """A run once it is over, also on a machine where its worker takes its time to start."""
        run = self.http(path, {"payload": payload})
        while run.get("status") in ("queued", "running"):
            run = self.http(f"/v1/runs/{run['id']}?wait=60")
        return dict(run)

    def workers(self, release_id: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.http("/v1/workers")["data"]
        return [worker for worker in found if worker["release_id"] == release_id]

    def containers(self) -> list[str]:
        """Those of this platform."""
        found = buildah("containers", "--format", "{{.ContainerName}}").split()
        return [name for name in found if name.startswith("gen-orchestrator-") and name not in self.before]

    def close(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self._log.close()


def ours() -> set[str]:
    """Images of the platform, as its releases name them."""
    listed = buildah("images", "--format", "{{.Name}}@{{.Digest}}", "--filter", "reference=cozy.local/local/*").split()
    return set(listed)


def remove_images() -> None:
    names = buildah("images", "--format", "{{.Name}}:{{.Tag}}", "--filter", "reference=cozy.local/local/*").split()
    if names:
        subprocess.run([*BUILDAH, "rmi", "--force", *names], env=ENV, capture_output=True, check=False)


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    remove_images()  # of a test that was cut off
    with BlobServer() as server:
        FakeHuggingFace(server, "gen-worker/digits-sd", read_tree(ROOT / "examples/models/digits-sd"))
        started = Platform(tmp_path_factory.mktemp("platform"), server.url)
        yield started
        started.close()
    assert started.containers() == [], "a platform that ends leaves no container behind"
    remove_images()


def test_a_folder_becomes_an_image_whose_workers_serve(platform: Platform, project: Project) -> None:
    built = platform.published(str(project("hello")))
    image = built["release"]["source"]
    assert image.startswith("cozy.local/local/hello@sha256:")
    answer = platform.finished("/v1/local/hello/generate", {"prompt": "image"})
    assert answer.get("output") == {"text": "Hello, image!"}, answer
    log = platform.verb("builds", "logs", built["build_id"]).stderr
    for line in ("STEP 1", "gen_worker.discover", f"image {image}"):
        assert line in log, log
    [name] = platform.containers()
    assert name.endswith(platform.workers(built["release_id"])[0]["worker_id"])
    for secret in ("cz_of-whoever-started-it", "WORKER_JWT="):
        assert secret not in subprocess.run(["ps", "axww", "-o", "args"], capture_output=True, text=True, check=True).stdout

    again = platform.published("--image", image)
    assert again["release_id"] == built["release_id"], "the same image is the same release"
    for reference, why in ((image.replace("/local/", "/other/"), "no image"), ("hello", "expected REGISTRY/NAME")):
        done = platform.verb("publish", "--image", reference)
        assert (done.returncode != 0, why in done.stderr) == (True, True), done.stderr


def test_an_image_goes_with_its_release(platform: Platform, project: Project) -> None:
    folder = project("hello")
    kept = platform.published(str(folder))
    main = folder / "src/hello/main.py"
    main.write_text(main.read_text().replace("Hello, ", "Hi, "))
    built = platform.published(str(folder))
    image = built["release"]["source"]
    assert platform.finished(f"/v1/local/hello/generate@{built['release_id']}", {"prompt": "image"})["output"] == {"text": "Hi, image!"}
    assert platform.http("/v1/status")["disk"]["images_bytes"] > 10_000_000
    assert ours() >= {image, kept["release"]["source"]}
    done = platform.verb("releases", "rm", built["release_id"], "--json")
    [removed] = json.loads(done.stdout)["data"]
    assert (removed["cleared"], removed["freed_bytes"] > 0) == (True, True), (done.stdout, done.stderr)
    assert (image in ours(), kept["release"]["source"] in ours()) == (False, True)
    assert platform.workers(built["release_id"]) == []
    assert platform.finished("/v1/local/hello/generate", {"prompt": "image"})["output"] == {"text": "Hello, image!"}


@pytest.mark.torch
@pytest.mark.timeout(1200)  # torch is installed and compiled
def test_digits_is_published_with_torch_and_gets_its_model(platform: Platform, project: Project) -> None:
    """The example as it is, but for where a machine without the internet finds torch."""
    folder = project("digits")
    with torch_wheels() as wheels:
        text = (folder / "pyproject.toml").read_text()
        found = f'[tool.uv]\nfind-links = ["{wheels}"]\nconstraint-dependencies = ["torch==2.13.0+cpu"]\n'
        (folder / "pyproject.toml").write_text(f"{text}\n{found}")
        built = platform.published(str(folder))
    image = built["release"]["source"]
    assert image.startswith("cozy.local/local/digits@sha256:")
    assert layers(image)[-1][1] < 20_000_000, "the layer of the code holds none of the packages"
    run = platform.finished("/v1/local/digits/generate", {"prompt": "seven", "num_inference_steps": 4})
    assert run["status"] == "succeeded", run
    [picture] = run["files"]
    with urllib.request.urlopen(platform.url + picture["url"], timeout=60) as answer:
        assert answer.read(4) == b"\x89PNG"
    [worker] = platform.workers(built["release_id"])
    assert any(name.endswith(worker["worker_id"]) for name in platform.containers()), "it was drawn in a container"
    assert worker["disk_models"] or worker["vram_models"], worker


def test_a_kill_of_the_platform_ends_its_containers_and_the_next_start_serves(platform: Platform) -> None:
    assert platform.finished("/v1/local/hello/generate", {"prompt": "before"})["output"] == {"text": "Hello, before!"}
    assert platform.process.stdout is not None
    with platform.process.stdout:
        platform.process.kill()
        platform.process.wait()
    platform.start()
    assert platform.finished("/v1/local/hello/generate", {"prompt": "after"})["output"] == {"text": "Hello, after!"}
    assert any("hello-" in name for name in platform.containers())


def test_code_that_cannot_be_read_is_told_to_its_author(platform: Platform, project: Project) -> None:
    folder = project("hello")
    (folder / "Dockerfile").write_text(
        f"FROM {BASE}\nRUN true || python -m gen_worker.discover > /app/.cozy/manifest.json\n{ENTRYPOINT_LINE}\n"
    )
    done = platform.verb("publish", str(folder))
    assert (done.returncode, "/app/.cozy/manifest.json cannot be read in it" in done.stderr) == (1, True), done.stderr
