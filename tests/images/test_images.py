"""Images of the examples, and what runs inside: `make images`."""

import asyncio
import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gen_worker.testing.loopback import LoopbackScheduler
from tests.blob_server import BlobServer
from tests.fake_hub import FakeHuggingFace, read_tree
from tests.images.conftest import BASE, ENTRYPOINT, ROOT, Build, buildah, container, layers, torch_wheels
from tests.images.registry import Registry

Project = Callable[[str], Path]

pytestmark = pytest.mark.timeout(600)  # an image is built, with torch in it


def worker_env(address: str) -> dict[str, str]:
    return {"SCHEDULER_PUBLIC_ADDR": address, "WORKER_JWT": "dev-worker-jwt"}


async def url_of(runner: asyncio.subprocess.Process) -> str:
    """Where the dev runner inside listens. A container by buildah shares the host's network."""
    assert runner.stdout is not None
    said = b""
    async with asyncio.timeout(60):
        while not (found := re.search(rb"listening on (http://\S+)", line := await runner.stdout.readline())):
            said += line
            assert line, said.decode()
    return found[1].decode()


async def test_hello_serves_and_a_change_of_its_code_is_one_small_layer(build: Build, project: Project) -> None:
    folder = project("hello")
    layered = {"BUILDAH_LAYERS": "true"}
    built = build(folder, env=layered)
    name = built.name
    under, first = layers(BASE), layers(name)
    assert sum(size for _, size in first[len(under) :]) < 64e6
    assert built.said["size_bytes"] == sum(size for _, size in first)
    assert built.said["functions"] == ["generate"]
    assert built.said["labels"]["cozy.endpoint"] == "hello"
    assert built.said["labels"]["org.opencontainers.image.version"] == "0.1.0"

    async with LoopbackScheduler() as scheduler, container(name, env=worker_env(scheduler.address)):
        await scheduler.worker(30)
        assert await scheduler.call("generate", {"prompt": "image"}) == {"text": "Hello, image!"}

    async with container(
        name, "sh", "-c", "ls -A /root/.cache /tmp /outputs 2>&1; ls /opt/venv/bin; sha256sum /app/.cozy/manifest.json; env"
    ) as shell:
        said = (await shell.communicate())[0].decode()
    assert built.said["manifest_digest"].removeprefix("sha256:") in said
    assert built.said["labels"]["cozy.manifest.digest"] == built.said["manifest_digest"]
    for left in ("pip", "hatchling", ".whl", "TOKEN", "uv_cache"):
        assert left not in said.partition("/opt/venv/bin")[0] + "".join(re.findall(r"^(?:pip|hatch).*", said, re.MULTILINE)), left

    code = folder / "src/hello/main.py"
    code.write_text(code.read_text().replace("Hello, ", "Goodbye, "))
    again = build(folder, env=layered)
    changed = [size for (digest, size), (old, _) in zip(layers(again.name), first, strict=True) if digest != old]
    assert len(changed) == 1
    assert changed[0] < 1.5e6  # most of it is the wheel of gen-worker, which lies in the folder beside the code
    assert again.said["manifest_digest"] == built.said["manifest_digest"]  # equal functions, equal bytes


async def test_stream_by_its_own_dockerfile_served_by_the_dev_runner(build: Build, project: Project) -> None:
    name = build(project("stream"), own=True).name
    command = ("python", "-m", "gen_worker.testing.http_runner", "--listen", "127.0.0.1:0", "--outputs", "/outputs")
    async with container(name, *command) as runner:
        answer = await curl(f"{await url_of(runner)}/v1/run/words", {"payload": {"prompt": "in an image"}})
    assert [event["payload"]["chunk"] for event in answer["events"] if event["event_type"] == "output.delta"] == ["in ", "an ", "image "]


@pytest.mark.torch
async def test_digits_with_torch_as_another_user(build: Build, project: Project, tmp_path: Path) -> None:
    """The README's way: prefetch and run by curl, files in a mounted folder; then the worker against the mock orchestrator on the host."""
    with torch_wheels() as wheels:
        arguments = (f"UV_FIND_LINKS={wheels}", "TORCH_SPEC===2.13.0+cpu", "WORKER_USER=worker")
        options = [option for argument in arguments for option in ("--build-arg", argument)]
        name = build(project("digits"), *options, env={"BUILDAH_LAYERS": "false"}).name
    out = tmp_path / "out"
    out.mkdir(mode=0o777)
    out.chmod(0o777)
    with BlobServer() as server:
        FakeHuggingFace(server, "gen-worker/digits-sd", read_tree(ROOT / "examples/models/digits-sd"))
        env = {"HF_ENDPOINT": server.url, "PYTHONUNBUFFERED": "1"}
        command = ("python", "-m", "gen_worker.testing.http_runner", "--listen", "127.0.0.1:0", "--outputs", "/outputs")
        async with container(name, *command, env=env, volumes={out: "/outputs"}) as runner:
            url = await url_of(runner)
            fetched = await curl(
                f"{url}/v1/models/prefetch", {"models": [{"ref": "hf:gen-worker/digits-sd@main", "dtypes": ["fp32", "fp16"]}]}
            )
            assert [result["ok"] for result in fetched["results"]] == [True], fetched
            sent = server.sent_bytes
            answer = await curl(f"{url}/v1/run/generate", {"payload": {"prompt": "seven", "num_inference_steps": 4}})
            assert answer["success"], answer
            assert server.sent_bytes == sent  # fetched once
            picture = out / "runs" / answer["run_id"] / "outputs/digit.png"
            assert picture.read_bytes().startswith(b"\x89PNG")
            assert picture.stat().st_uid != 0

        saved = tmp_path / "saved"
        options = ("--wait-s", "60", "--serve-files-dir", str(saved), "--serve-files-listen", "127.0.0.1:0")
        payload = json.dumps({"prompt": "three", "num_inference_steps": 2})
        mock = (sys.executable, "-m", "gen_worker.testing.mock_orchestrator", "--listen", "127.0.0.1:0", "--run", "generate", *options)
        ordered = await asyncio.create_subprocess_exec(*mock, "--payload-json", payload, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert ordered.stderr is not None
        address = None
        while address is None:
            line = await asyncio.wait_for(ordered.stderr.readline(), 60)
            assert line
            address = re.match(rb"listening on (\S+)", line)
        async with container(name, env=env | worker_env(address[1].decode())):
            stdout, stderr = await asyncio.wait_for(ordered.communicate(), 90)
        assert ordered.returncode == 0, (stdout, stderr)
        assert [path.read_bytes()[:4] for path in saved.rglob("digit.png")] == [b"\x89PNG"]


async def curl(url: str, body: dict) -> dict:
    process = await asyncio.create_subprocess_exec(
        "curl", "-sS", "-X", "POST", url, "-H", "content-type: application/json", "-d", json.dumps(body), stdout=asyncio.subprocess.PIPE
    )
    answer: dict = json.loads((await asyncio.wait_for(process.communicate(), 120))[0])
    return answer


@pytest.mark.parametrize(
    ("file", "change", "reason"),
    [
        ("cozy.toml", ("main = ", 'main = "nothing.here"\n#'), "no module 'nothing' in this folder"),
        ("cozy.toml", ('gen_worker = ">=0.2.0,<0.3.0"', 'gen_worker = ">=9"'), "does not satisfy gen_worker = '>=9'"),
        ("src/hello/main.py", ("@worker_function()", ""), "no function marked with @worker_function()"),
    ],
    ids=["no such module", "another gen-worker", "no function"],
)
def test_a_project_that_cannot_serve_becomes_no_image(
    build: Build, project: Project, file: str, change: tuple[str, str], reason: str
) -> None:
    folder = project("hello")
    path = folder / file
    assert change[0] in path.read_text()
    path.write_text(path.read_text().replace(*change))
    built = build(folder)
    assert built.status == 1
    assert reason in built.said["error"], built.said


def test_push_gives_the_digest_of_the_registry(build: Build, project: Project, tmp_path: Path) -> None:
    with Registry() as registry:
        conf = tmp_path / "registries.conf"
        conf.write_text(f'[[registry]]\nlocation = "{registry.address}"\ninsecure = true\n')
        built = build(project("hello"), "--push", "-t", f"{registry.address}/team/hello:1", env={"CONTAINERS_REGISTRIES_CONF": str(conf)})
        assert built.name.endswith("/team/hello:1")
        assert built.said["digest"] == f"sha256:{hashlib.sha256(registry.manifests['1']).hexdigest()}"
        assert {layer["digest"] for layer in json.loads(registry.manifests["1"])["layers"]} <= registry.blobs.keys()
        assert built.said["digest"] in built.said["next"]


def test_an_image_that_breaks_the_contract_is_refused(build: Build, project: Project) -> None:
    folder = project("hello")
    dockerfile = folder / "Dockerfile"
    dockerfile.write_text(
        f"FROM {BASE}\nENTRYPOINT {json.dumps(list(ENTRYPOINT))}\nRUN true || python -m gen_worker.discover > /app/.cozy/manifest.json\n"
    )
    built = build(folder, own=True)
    assert built.status == 1
    assert "/app/.cozy/manifest.json cannot be read in it" in built.said["error"]
    assert buildah("containers", "-q", "--filter", "name=gen-worker-nothing") == ""
