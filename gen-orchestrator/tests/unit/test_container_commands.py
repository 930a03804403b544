"""The commands that run a worker's container, and which image references may be published."""

from pathlib import Path

import pytest

from gen_orchestrator.fleet.base import WorkerSpec
from gen_orchestrator.fleet.container_commands import commands_of, container_environment, is_loopback
from gen_orchestrator.hub.builders import is_image
from gen_orchestrator.hub.image_builder import pinned, reference_problem
from gen_worker.images.engines import Image

DIGEST = "sha256:" + "a" * 64
SPEC = WorkerSpec(
    worker_id="w-1",
    release_id="r-1",
    owner="local",
    token="ey.secret",
    scheduler_addr="127.0.0.1:8081",
    image=f"registry.example/team/worker@{DIGEST}",
    drain_s=20,
    gpu="2",
    env={"COZY_HUB_TOKEN": "hub.secret"},
)


@pytest.mark.parametrize(
    ("engine", "gpu", "by_stdin"),
    [("docker", ["--gpus", "device=2"], False), ("/usr/bin/podman", ["--device", "nvidia.com/gpu=2"], False), ("buildah", [], True)],
)
def test_a_container_has_its_image_and_network_and_no_secret_on_the_command_line(engine: str, gpu: list[str], by_stdin: bool) -> None:
    commands = commands_of([engine, "--root", "/store"])
    env = container_environment(SPEC, {})
    told = [*commands.create("c-1", SPEC.image), *commands.run("c-1", SPEC, env, Path("/caches/local"))]
    assert told[:3] == [engine, "--root", "/store"]
    assert SPEC.image in told
    assert ("host" in told, "/caches/local:/var/cache/gen-worker" in told, commands.by_stdin) == (True, True, by_stdin)
    assert "secret" not in " ".join(told)
    assert all(part in told for part in gpu)
    assert "c-1" in commands.remove("c-1")
    if not by_stdin:
        assert told.count("--env") == len(env)
        assert "host" not in commands.run("c-1", SPEC_FAR, env, Path("/caches/local"))


SPEC_FAR = WorkerSpec(worker_id="w", release_id="r", owner="o", token="", scheduler_addr="10.0.0.1:8081", image="i", drain_s=1)


def test_a_container_sees_no_keys_and_no_paths_of_the_platform() -> None:
    env = {
        "COZY_API_KEY": "cz_operator",
        "COZY_NEAR_BLOBS": "/data/models",
        "HF_HOME": "/home/somebody/.cache/huggingface",
        "HF_ENDPOINT": "http://127.0.0.1:1",
        "AWS_SECRET_ACCESS_KEY": "aws",
        "PATH": "/bin",
    }
    seen = container_environment(SPEC, env)
    assert seen["HF_ENDPOINT"] == "http://127.0.0.1:1"
    assert seen["WORKER_JWT"] == "ey.secret"
    assert seen["COZY_HUB_TOKEN"] == "hub.secret"
    assert not seen.keys() & {"COZY_API_KEY", "COZY_NEAR_BLOBS", "AWS_SECRET_ACCESS_KEY", "PATH", "CUDA_VISIBLE_DEVICES"}
    assert [value for value in seen.values() if value.startswith("/")] == [
        "/var/cache/gen-worker/tensorhub",
        "/var/cache/gen-worker/huggingface",
    ]


@pytest.mark.parametrize(
    ("addresses", "expected"),
    [("127.0.0.1:1", True), ("[::1]:1", True), ("localhost:1", True), ("10.0.0.1:1,127.0.0.1:2", True), ("10.0.0.1:1", False), ("", False)],
)
def test_addresses_of_this_machine_alone_are_known(addresses: str, expected: bool) -> None:
    assert is_loopback(addresses) is expected


@pytest.mark.parametrize(
    "reference", ["registry.example/team/worker:1", f"localhost:5000/w@{DIGEST}", f"cozy.local/o/e:t@{DIGEST}", "localhost/w"]
)
def test_a_reference_names_its_registry(reference: str) -> None:
    assert reference_problem(reference) == ""


@pytest.mark.parametrize(
    "reference", ["hello", "a" * 12, DIGEST, "--privileged/x", "a/b c", "a/b\nRUN id", "a/b@sha256:1", "a/" + "b" * 600, ""]
)
def test_what_names_no_image_of_a_registry_is_refused(reference: str) -> None:
    assert "expected REGISTRY/NAME" in reference_problem(reference)


def test_a_release_of_an_image_is_told_from_one_of_a_folder() -> None:
    def image(digest: str) -> Image:
        return Image(name="host:5000/team/worker:1", image_id=DIGEST, digest=digest, entrypoint=(), labels={}, layers=())

    assert pinned(image(DIGEST)) == f"host:5000/team/worker@{DIGEST}"
    assert pinned(image("")) == DIGEST
    assert (is_image(pinned(image(DIGEST))), is_image(pinned(image("")))) == (True, True)
    assert not is_image("/data/releases/published-sha256:1/source")
    assert not is_image("")
