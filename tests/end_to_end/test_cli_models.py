"""`cozyctl models` from a user's view: plan, prefetch, verify, gc."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.blob_server import BlobServer
from tests.conftest import EXAMPLES
from tests.fake_hub import FakeCozyHub, FakeHuggingFace, read_tree

from gen_worker.client.profiles import Profile, Profiles

DIGITS = EXAMPLES / "models/digits-sd"
CODE = """
class In(msgspec.Struct):
    prompt: str

@worker_function
def draw(ctx: ActionContext, payload: In, path: Annotated[Path, ModelRef(ModelRefSource.FIXED, "digits")]) -> In:
    return payload
"""
COZY = '[models]\ndigits = { ref = "hf:demo/digits", dtypes = ["fp32"] }\nother = "cozy:demo/other"\n'


@pytest.fixture
def server() -> Iterator[BlobServer]:
    with BlobServer() as server:
        FakeHuggingFace(server, "demo/digits", read_tree(DIGITS) | {"unet/diffusion_pytorch_model.bin": b"pickle" * 100})
        yield server


@pytest.fixture
def cozyctl(server: BlobServer, project: Callable[..., Path], tmp_path: Path) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    folder = project(CODE, COZY)
    settings = {
        "HF_ENDPOINT": server.url,
        "HF_HOME": str(tmp_path / "hf"),
        "TENSORHUB_CACHE_DIR": str(tmp_path / "cache"),
        "COZY_HOME": str(tmp_path / "cozy"),
        "COZY_URL": "http://127.0.0.1:1",  # nobody answers there
        "COLUMNS": "200",
    }

    def run(*arguments: str, **env: str) -> "subprocess.CompletedProcess[str]":
        code = "import sys; from gen_worker.cli.main import main; main(sys.argv[1:])"
        command = [sys.executable, "-c", code, "models", *arguments]
        return subprocess.run(command, cwd=folder, env={**os.environ, **settings, **env}, capture_output=True, text=True, check=False)

    return run


def test_plan_fetch_check_and_drop(cozyctl: Callable[..., "subprocess.CompletedProcess[str]"], tmp_path: Path, server: BlobServer) -> None:
    shown = cozyctl("plan", "digits")
    assert shown.returncode == 0, shown.stderr
    for word in (
        "unet",
        "text_encoder",
        "fp32",
        "to fetch",
        "left out, because loading them can run code: unet/diffusion_pytorch_model.bin",
    ):
        assert word in shown.stdout
    assert not (tmp_path / "hf").exists()
    assert shown.stderr == "next: cozyctl models prefetch digits\n"
    other = cozyctl("plan", "digits", "--dtype", "bf16")  # in place of what cozy.toml says
    assert other.returncode == 1
    assert "comes in fp32, allowed are bf16" in other.stderr
    assert "fp99" in cozyctl("plan", "digits", "--dtype", "fp99").stderr
    plan = json.loads(cozyctl("plan", "digits", "--json").stdout)["models"][0]
    assert (plan["source"], plan["kind"], plan["here_bytes"]) == ("hf", "diffusers", 0)
    assert plan["weight_bytes"] > 4_000_000
    assert {part["name"]: part["precision"] for part in plan["parts"]}["unet"] == "fp32"

    fetched = cozyctl("prefetch", "digits")
    assert fetched.returncode == 0, fetched.stderr
    assert "downloading" in fetched.stderr
    again = json.loads(cozyctl("prefetch", "digits", "--json").stdout)
    assert again["models"][0]["ok"]
    assert json.loads(cozyctl("plan", "digits", "--json").stdout)["models"][0]["here_bytes"] == plan["size_bytes"]
    assert cozyctl("plan", "digits").stderr == "next: cozyctl dev\n"
    (listed,) = json.loads(cozyctl("list", "--json").stdout)["models"]
    assert listed["ref"].startswith("hf:demo/digits@")

    assert cozyctl("verify").returncode == 0
    blob = max((tmp_path / "hf/hub").rglob("blobs/*"), key=lambda path: path.stat().st_size)
    blob.write_bytes(b"x" * blob.stat().st_size)
    damaged = cozyctl("verify", "--repair")
    assert damaged.returncode == 1
    assert "damaged: unet/diffusion_pytorch_model.safetensors" in damaged.stderr
    assert cozyctl("prefetch", "digits").returncode == 0
    assert cozyctl("verify").returncode == 0

    assert cozyctl("evict", "hf:demo/digits").returncode == 0
    assert json.loads(cozyctl("list", "--json").stdout)["models"] == []
    assert cozyctl("evict", "hf:demo/digits").returncode == 3
    assert cozyctl("gc").returncode == 0


def test_what_does_not_fit_is_said_before_anything_is_fetched(cozyctl: Callable[..., "subprocess.CompletedProcess[str]"]) -> None:
    too_large = cozyctl("plan", "digits", WORKER_MAX_VRAM_GB="0.001")
    assert too_large.returncode == 1
    assert "its weights take 0.00 GB, and the device has 0.00 GB for models" in too_large.stdout
    no_disk = json.loads(cozyctl("plan", "digits", "--json", WORKER_MIN_FREE_DISK_GB="1000000").stdout)
    assert not no_disk["ok"]
    assert "do not fit. Make room" in no_disk["models"][0]["problems"][0]


def test_errors_name_what_is_wrong(cozyctl: Callable[..., "subprocess.CompletedProcess[str]"]) -> None:
    unknown = cozyctl("plan", "digit")
    assert unknown.returncode == 3
    assert "no model 'digit'. Did you mean 'digits'?" in unknown.stderr or "digits" in unknown.stderr
    refused = cozyctl("prefetch", "other")
    assert refused.returncode == 1
    assert "cozy:demo/other is not on this machine, and no platform answers at http://127.0.0.1:1: start one" in refused.stderr
    assert "no platform answers at http://127.0.0.1:1" in cozyctl("plan", "other").stderr
    assert "no profile 'no/default'" in cozyctl("plan", "other", "--profile", "no").stderr
    precision = cozyctl("plan", "hf:demo/nine", "--dtype", "fp64")
    assert precision.returncode == 3
    assert "fp64" in precision.stderr


def test_a_hub(cozyctl: Callable[..., "subprocess.CompletedProcess[str]"], server: BlobServer) -> None:
    FakeCozyHub(server).add("cozy:demo/other:latest", read_tree(DIGITS))
    plan = json.loads(cozyctl("plan", "other", "--json", COZY_HUB_URL=server.url).stdout)["models"][0]
    assert (plan["source"], plan["here_bytes"]) == ("hub", 0)
    assert cozyctl("prefetch", "other", COZY_HUB_URL=server.url).returncode == 0
    assert json.loads(cozyctl("list", "--json").stdout)["models"][0]["ref"] == "cozy:demo/other:latest"
    assert cozyctl("verify").returncode == 0


def test_models_of_the_platform_that_one_is_logged_in_to_count(
    cozyctl: Callable[..., "subprocess.CompletedProcess[str]"], server: BlobServer, tmp_path: Path
) -> None:
    hub = FakeCozyHub(server, token="of-me")
    hub.add("cozy:demo/other:latest", read_tree(DIGITS))
    Profiles(tmp_path / "cozy", {}).write("work", "default", Profile(orchestrator_url=server.url, token="of-me"))
    named = cozyctl("plan", "other", "--profile", "work")
    assert f"to fetch from the platform at {server.url}," in named.stdout, named
    assert named.stderr == "next: cozyctl models prefetch other --profile work\n"
    Profiles(tmp_path / "cozy", {}).use("work", "default")
    plan = json.loads(cozyctl("plan", "other", "--json", COZY_URL="").stdout)["models"][0]
    assert (plan["source"], plan["origin"], plan["here_bytes"]) == ("platform", f"the platform at {server.url}", 0)
    assert "to fetch from Hugging Face," in cozyctl("plan", "digits", COZY_URL="").stdout
    hub.add("cozy:hf/demo--digits:latest", read_tree(DIGITS))
    both = cozyctl("plan", "digits", COZY_URL="").stdout
    assert "to fetch from Hugging Face," in both
    assert f"the platform at {server.url} has it, too: its workers do not ask Hugging Face" in both
    assert cozyctl("prefetch", "other", COZY_URL="").returncode == 0
    assert "everything is on this disk" in cozyctl("plan", "other").stdout, "nobody is asked for it"
    unknown = cozyctl("plan", "cozy:demo/none", COZY_URL="")
    assert f"cozy:demo/none is not on this machine, nor on the platform at {server.url}" in unknown.stderr
    assert "What is there: cozyctl models hub" in unknown.stderr
    server.routes = {"/api/v1/repos/": lambda exchange: exchange.reply(401, {"detail": "a key is needed"})} | server.routes
    Profiles(tmp_path / "cozy", {}).write("work", "default", Profile(orchestrator_url=server.url, token="of-nobody"))
    assert f"requires a key: cozyctl login --url {server.url}" in cozyctl("plan", "cozy:demo/none", COZY_URL="").stderr
