"""cozyctl from a user's view: output, exit codes, JSON."""

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.conftest import EXAMPLES

CODE = """
class In(msgspec.Struct):
    prompt: str
    n: int = 0
    image: Asset | None = None

class Out(msgspec.Struct):
    text: str

@worker_function
def go(ctx: ActionContext, payload: In) -> Out:
    print("a print of the author")
    ctx.progress(0.5, stage="half")
    ctx.done().wait(payload.n)
    if ctx.is_canceled():
        raise InterruptedError
    if payload.prompt == "bad":
        raise ValidationError("no bad prompts")
    return Out(payload.prompt + (payload.image.read_bytes().decode() if payload.image else ""))
"""


def cozyctl(*arguments: str, cwd: Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from gen_worker.cli.main import main; main()", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=60, check=False, env={**os.environ, **(env or {})})


@pytest.mark.parametrize(
    ("template", "run", "output"),
    [
        ("hello", ["run", "generate", "-i", "prompt=world"], {"text": "Hello, world!"}),
        ("stream", ["run", "generate", "-i", "prompt=one two"], [{"chunk": "one "}, {"chunk": "two "}]),
    ],
)
def test_init_then_run_gives_a_result(tmp_path: Path, template: str, run: list[str], output: object) -> None:
    made = cozyctl("init", "my kite", "--template", template, cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    assert "next: cd 'my kite' && cozyctl run generate" in made.stderr
    found = cozyctl(*run, "--json", cwd=tmp_path / "my kite")
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout)["output"] == output
    checked = cozyctl("check", "--json", cwd=tmp_path / "my kite")
    assert json.loads(checked.stdout)["ok"] is True
    again = cozyctl("init", "my kite", cwd=tmp_path)
    assert again.returncode == 2
    assert "is not empty" in again.stderr


def test_the_diffusers_template_is_discovered(tmp_path: Path) -> None:
    assert cozyctl("init", "draw", "--template", "diffusers", cwd=tmp_path).returncode == 0
    found = cozyctl("discover", cwd=tmp_path / "draw")
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout)["models_by_function"]["generate"]["base"]["ref"].startswith("hf:stable-diffusion")


def test_json_alone_on_stdout(project: Callable[..., Path]) -> None:
    found = cozyctl("run", "go", "-i", "prompt=x", "--json", cwd=project(CODE))
    assert json.loads(found.stdout) == {"ok": True, "output": {"text": "x"}, "files": []}


def test_it_is_a_module_too(project: Callable[..., Path]) -> None:
    """Debuggers start modules: docs/guides/log-and-debug.md."""
    command = [sys.executable, "-m", "gen_worker.cli", "discover"]
    found = subprocess.run(command, cwd=project(CODE), capture_output=True, text=True, timeout=60, check=False)
    assert (found.returncode, json.loads(found.stdout)["functions"][0]["name"]) == (0, "go"), found.stderr


def test_text_for_people_on_stderr(project: Callable[..., Path]) -> None:
    found = cozyctl("run", "-i", "prompt=7", cwd=project(CODE))
    assert json.loads(found.stdout) == {"text": "7"}
    assert "go: 50% half" in found.stderr
    assert "a print of the author" in found.stderr


def test_a_run_leaves_nothing_that_it_did_not_save(project: Callable[..., Path]) -> None:
    folder = project(CODE)
    found = cozyctl("run", "-i", "prompt=7", "-i", "promt=8", cwd=folder)
    assert found.returncode == 0
    assert not (folder / "outputs").exists()
    assert found.stderr.count("promt") == 2  # one warning: the name, and where it stands
    assert "Did you mean 'prompt'?" in found.stderr


def test_files_and_json_payloads(project: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("!")
    folder = project(CODE)
    found = cozyctl("run", "go", "--payload", '{"n": 0}', "-i", "prompt=hey", "-i", f"image=@{tmp_path}/note.txt", "--json", cwd=folder)
    assert json.loads(found.stdout)["output"] == {"text": "hey!"}


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["run", "go", "-i", "prompt=bad"], 1, "error: ValidationError: no bad prompts"),
        (["run", "go", "-i", "promt=x"], 1, "Unknown field 'promt'. Did you mean 'prompt'?"),
        (["run", "goo", "-i", "prompt=x"], 3, "no function 'goo'. Did you mean 'go'?"),
        (["run", "go", "-i", "prompt"], 2, "expected FIELD=VALUE"),
        (["run", "go", "-i", "image=@missing.png"], 2, "there is no file missing.png"),
        (["run", "go", "--payload", "{"], 2, "--payload is not JSON"),
        (["run", "go", "-i", "prompt=x", "-i", "n=30", "--timeout", "0.2"], 5, "timed out after 200 ms"),
        (["runn"], 2, "no command 'runn'. Did you mean 'run'?"),
        (["run", "--folder", "missing"], 2, "does not exist"),
    ],
)
def test_exit_codes_and_messages(project: Callable[..., Path], arguments: list[str], status: int, message: str) -> None:
    found = cozyctl(*arguments, cwd=project(CODE))
    assert message in found.stderr
    assert found.returncode == status
    assert "Traceback" not in found.stderr


def test_failures_as_json(project: Callable[..., Path]) -> None:
    folder = project(CODE)
    for arguments, status, code in ((["run", "go", "-i", "prompt=bad"], 1, "validation"), (["run", "goo"], 3, "not_found")):
        found = cozyctl(*arguments, "--json", cwd=folder)
        assert found.returncode == status
        assert json.loads(found.stdout)["code"] == code


def test_check_explains_every_breach(project: Callable[..., Path]) -> None:
    folder = project("@worker_function\ndef f(ctx): ...\n")
    (folder / "requirements.txt").write_text("")
    found = cozyctl("check", cwd=folder)
    assert found.returncode == 1
    for part in ("missing Dockerfile", "missing pyproject.toml", "does not use requirements.txt", "must accept (ctx, payload, ...)"):
        assert part in found.stderr


def test_build_refuses_before_it_builds(tmp_path: Path) -> None:
    assert cozyctl("init", "kite", cwd=tmp_path).returncode == 0
    for arguments, status, code, reason in (
        (["--platform", "linux/amd64,linux/arm64"], 2, "usage", "names several; build one after the other"),
        (["--platform", "arm"], 2, "usage", "is not OS/ARCH"),
        (["--build-arg", "cu126"], 2, "usage", "is not KEY=VALUE"),
        (["--tag", "My Image"], 2, "usage", "is not an image name"),
        (["--push"], 2, "usage", "--push needs a name with a registry"),
        (["--engine", "kaniko"], 3, "engine", "'kaniko' is not installed"),
    ):
        found = cozyctl("build", "kite", "--json", *arguments, cwd=tmp_path)
        said = json.loads(found.stdout)
        assert (found.returncode, said["code"]) == (status, code), said
        assert reason in said["error"]
    (tmp_path / "kite/Dockerfile").write_text("FROM base\n")
    found = cozyctl("build", "kite", cwd=tmp_path)
    assert found.returncode == 1
    assert "has no ENTRYPOINT" in found.stderr
    assert "does not bake the manifest" in found.stderr


def test_ctrl_c_cancels_the_run(project: Callable[..., Path]) -> None:
    import signal

    command = [sys.executable, "-c", "from gen_worker.cli.main import main; main()", "run", "go", "-i", "prompt=x", "-i", "n=30"]
    with subprocess.Popen(command, cwd=project(CODE), stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        while "half" not in process.stderr.readline():
            pass
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130


def test_a_terminal_sees_a_progress_bar(project: Callable[..., Path]) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-c", "from gen_worker.cli.main import main; main()", "run", "go", "-i", "prompt=x", "-i", "n=1"]
    with subprocess.Popen(
        command, cwd=project(CODE), stderr=theirs, stdout=subprocess.PIPE, env={**os.environ, "TERM": "xterm"}
    ) as process:
        os.close(theirs)
        seen = b""
        try:
            while chunk := os.read(ours, 4096):
                seen += chunk
        except OSError:
            pass
        assert process.wait(60) == 0
    assert b"half" in seen
    assert b"\x1b[" in seen


def test_help_lists_the_verbs(tmp_path: Path) -> None:
    found = cozyctl("--help", cwd=tmp_path)
    for verb in ("init", "check", "discover", "dev", "run"):
        assert verb in found.stdout


@pytest.mark.parametrize("example", ["hello", "stream", "digits", "digits-variants", "read-image"])
def test_examples_pass_discovery(example: str) -> None:
    found = cozyctl("discover", cwd=EXAMPLES / example)
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout)["endpoint_name"] == example


def test_a_folder_without_an_endpoint_is_one_error(tmp_path: Path) -> None:
    for arguments in (["check"], ["models", "plan"]):
        found = cozyctl(*arguments, cwd=tmp_path)
        assert found.returncode == 3
        assert found.stderr.count("error:") == 1


def test_a_payload_that_does_not_fit_shows_the_fields(project: Callable[..., Path]) -> None:
    assert "usage: cozyctl run go -i prompt=TEXT [-i n=NUMBER] [-i image=@FILE]" in cozyctl("run", "go", cwd=project(CODE)).stderr


def test_a_field_that_chooses_a_model_shows_its_keys(project: Callable[..., Path]) -> None:
    code = """
from typing import Literal

class Chosen(msgspec.Struct):
    model: str
    prompt: str
    style: Literal["oil", "ink"] = "oil"
    size: Literal[1, 2] | None = None
    mask: Annotated[Asset | None, msgspec.Meta(description="where to draw")] = None
    seed: Annotated[int, msgspec.Meta(ge=0)] | None = None

class Out(msgspec.Struct):
    text: str

@worker_function
def pick(ctx: ActionContext, weights: Annotated[Path, ModelRef(ModelRefSource.PAYLOAD, "model")], payload: Chosen) -> Out:
    return Out(payload.prompt)
"""
    folder = project(code)
    with (folder / "cozy.toml").open("a") as file:
        file.write('[models]\nturbo = "hf:a/b"\nbase = "hf:a/c"\n')
    assert (
        "usage: cozyctl run pick -i model=turbo|base -i prompt=TEXT [-i style=oil|ink] [-i size=1|2] [-i mask=@FILE] [-i seed=NUMBER]\n"
        in cozyctl("run", "pick", cwd=folder).stderr
    )


def test_check_says_all_that_is_wrong_at_once(project: Callable[..., Path]) -> None:
    folder = project(CODE)
    path = folder / "cozy.toml"
    path.write_text(path.read_text().replace("schema_version = 1", "schema_version = 7") + "[models]\na = 5\n[scaling]\nmni = 1\n")
    found = json.loads(cozyctl("check", "--json", cwd=folder).stdout)["errors"]
    assert [error.partition(": ")[2].partition(" ")[0] for error in found if error.startswith("cozy.toml:")] == [
        "schema_version", "model", "unknown",
    ]  # fmt: skip


def test_the_folder_is_named_in_one_way_everywhere(project: Callable[..., Path], tmp_path: Path) -> None:
    folder = str(project(CODE))
    for verb in (["discover"], ["models", "plan"], ["run", "go", "-i", "prompt=x"], ["discover", "--json"]):
        assert cozyctl(*verb, "--folder", folder, cwd=tmp_path).returncode == 0
    assert cozyctl("discover", folder, cwd=tmp_path).returncode == 0
    found = cozyctl("discover", folder, "--folder", str(tmp_path), cwd=tmp_path)
    assert found.returncode == 2
    assert "the folder is named twice" in found.stderr
