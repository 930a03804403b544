"""What a build prints, what a Dockerfile does, which torch an image gets: only read, nothing is built."""

from pathlib import Path

import pytest

from gen_worker.images.engines import EngineError, find_engine, instruction_of
from gen_worker.images.steps import BuildLog
from gen_worker.project.build_contract import check_build
from gen_worker.project.dockerfile import BAKE_LINE, ENTRYPOINT_LINE, problems_of, read_instructions
from gen_worker.project.templates import TEMPLATES, render_template
from gen_worker.project.torch_build import TorchBuild, fit_problems, torch_build

ROOT = Path(__file__).parents[2]
GOOD = f"FROM base\n{BAKE_LINE}\n{ENTRYPOINT_LINE}\n"
BUILDAH = """STEP 1/3: FROM base
STEP 2/3: RUN make
--> Using cache 1234
STEP 3/3: COPY . .
some output
"""
CLASSIC = """Sending build context to Docker daemon  2.56kB
Step 1/2 : FROM base
 ---> 1234
Step 2/2 : RUN make
 ---> Using cache
"""
BUILDKIT = """#1 [internal] load build definition from Dockerfile
#1 DONE 0.0s
#5 [1/3] FROM docker.io/library/base
#5 DONE 0.1s
#6 [2/3] RUN make
#6 CACHED
#7 [stage-1 3/3] RUN python -m gen_worker.discover
#7 0.512 error: no function
#7 ERROR: process did not complete successfully
"""


@pytest.mark.parametrize(
    ("text", "steps", "cached", "tail"),
    [
        (BUILDAH, [(1, 3), (2, 3), (3, 3)], [False, True, False], "some output"),
        (CLASSIC, [(1, 2), (2, 2)], [False, True], ""),
        (BUILDKIT, [(1, 3), (2, 3), (3, 3)], [False, True, False], "ERROR: process did not complete successfully"),
    ],
    ids=["buildah", "classic", "buildkit"],
)
def test_steps_of_each_builders_output(text: str, steps: list[tuple[int, int]], cached: list[bool], tail: str) -> None:
    log = BuildLog()
    seen = [step for line in text.splitlines() if (step := log.feed(line)) is not None]
    distinct = list({id(step): step for step in seen}.values())
    assert [(step.number, step.count) for step in distinct] == steps
    assert [step.cached for step in distinct] == cached
    assert log.tail[-1:] == ([tail] if tail else [])


def test_the_tail_is_that_of_the_failing_step() -> None:
    log = BuildLog()
    for line in BUILDKIT.splitlines():
        log.feed(line)
    assert log.step is not None
    assert log.step.instruction == "RUN python -m gen_worker.discover"
    assert log.tail == ["error: no function", "ERROR: process did not complete successfully"]


@pytest.mark.parametrize(
    ("created_by", "instruction"),
    [
        ("/bin/sh -c #(nop) COPY dir:1f in . ", "COPY dir:1f in ."),
        ("|2 A=1 B=2 /bin/sh -c set -eu;    make", "RUN set -eu; make"),
        ("RUN /bin/sh -c make # buildkit", "RUN /bin/sh -c make"),
        ("", ""),
    ],
)
def test_instructions_in_a_history(created_by: str, instruction: str) -> None:
    assert instruction_of(created_by) == instruction


def test_a_dockerfile_is_read_line_by_line() -> None:
    found = read_instructions('# syntax\nFROM a AS b\n\nRUN one \\\n  # between\n  two\nentrypoint ["x"]\n')
    assert [(item.name, item.value, item.line) for item in found] == [
        ("FROM", "a AS b", 2),
        ("RUN", "one two", 4),
        ("ENTRYPOINT", '["x"]', 7),
    ]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "has no FROM"),
        (f"FROM base\n{BAKE_LINE}\n", "has no ENTRYPOINT"),
        (f"FROM base\n{BAKE_LINE}\n{ENTRYPOINT_LINE}\nFROM other\n", "has no ENTRYPOINT"),
        (f"FROM base\n{BAKE_LINE}\nENTRYPOINT python -m gen_worker.entrypoint\n", "Dockerfile:3: ENTRYPOINT in its shell form"),
        (f'FROM base\n{BAKE_LINE}\nENTRYPOINT ["python", "main.py"]\n', 'ENTRYPOINT is ["python", "main.py"]'),
        (f"FROM base\n{BAKE_LINE}\nENTRYPOINT [python]\n", "is not a JSON list"),
        (f"FROM base\n{ENTRYPOINT_LINE}\n", "does not bake the manifest"),
        (f"FROM base\nRUN python -m gen_worker.discover > /tmp/m.json\n{ENTRYPOINT_LINE}\n", "Dockerfile:2: the manifest does not go to"),
        (f"{GOOD}ENV HF_TOKEN=hf_abc\n", "Dockerfile:4: HF_TOKEN has a value"),
    ],
)
def test_breaches_of_the_contract(text: str, reason: str) -> None:
    assert any(reason in problem for problem in problems_of(text)), problems_of(text)


def test_what_keeps_the_contract() -> None:
    assert problems_of(GOOD) == []
    assert problems_of(GOOD + "ARG HF_TOKEN\nENV HF_TOKEN=$HF_TOKEN\n") == []
    assert problems_of((ROOT / "Dockerfile").read_text()) == []


@pytest.mark.parametrize("example", [path.name for path in (ROOT / "examples").iterdir() if (path / "cozy.toml").is_file()])
def test_examples_keep_the_contract_by_the_dockerfile_of_the_templates(example: str) -> None:
    found = check_build(ROOT / "examples" / example)
    assert found.errors == ()
    written = render_template("hello", example)
    for name in ("Dockerfile", ".dockerignore"):
        assert (ROOT / "examples" / example / name).read_text() == written[name]


@pytest.mark.parametrize("template", TEMPLATES)
def test_templates_keep_the_contract(template: str, tmp_path: Path) -> None:
    for name, text in render_template(template, "new-one").items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert check_build(tmp_path).errors == ()
    (tmp_path / "requirements.txt").touch()
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".dockerignore").write_text("outputs\n")
    project = tmp_path / "pyproject.toml"
    project.write_text(project.read_text().replace("gen-worker>=", "gen-workers>="))
    found = check_build(tmp_path)
    assert any("does not use requirements.txt" in error for error in found.errors)
    (missing,) = (error for error in found.errors if "gen-worker is not among [project].dependencies" in error)
    assert 'add "gen-worker>=0.2.0,<0.3.0" to them' in missing
    assert any(".dockerignore does not name .venv" in warning for warning in found.warnings)


@pytest.mark.parametrize(
    ("files", "cuda"),
    [
        ({"uv.lock": '[[package]]\nname = "torch"\nversion = "2.10.0+cu126"\n'}, "12.6"),
        ({"uv.lock": '[[package]]\nname = "torch"\nversion = "2.10.0+cpu"\n'}, "cpu"),
        ({"uv.lock": '[[package]]\nname = "nvidia-cuda-runtime-cu12"\nversion = "12.8.90"\n[[package]]\nname = "torch"\nversion = "2.10.0"\n'}, "12.8"),
        ({"uv.lock": '[[package]]\nname = "nvidia-cuda-runtime"\nversion = "13.0.48"\n[[package]]\nname = "torch"\nversion = "2.12.0"\n'}, "13.0"),
        ({"pyproject.toml": '[tool.uv.sources]\ntorch = { index = "t" }\n[[tool.uv.index]]\nname = "t"\nurl = "https://x/whl/cu128"\n'}, "12.8"),
        ({"pyproject.toml": '[tool.uv.sources]\ntorch = [{ index = "t", marker = "a" }]\n[[tool.uv.index]]\nname = "t"\nurl = "https://x/whl/cpu/"\n'}, "cpu"),
        ({"Dockerfile": "FROM x\nENV UV_TORCH_BACKEND=cu130\n"}, "13.0"),
        ({"Dockerfile": 'FROM x\nARG UV_TORCH_BACKEND=""\n'}, None),
        ({"uv.lock": "no toml ["}, None),
    ],
)  # fmt: skip
def test_the_build_of_torch_is_found(files: dict[str, str], cuda: str | None, tmp_path: Path) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    found = torch_build(tmp_path)
    assert (found.cuda if found else None) == cuda


@pytest.mark.parametrize(
    ("built", "asked", "error", "warning"),
    [
        ("12.6", ">=12.6", "", ""),
        ("12.6", ">=12.6,<13", "", ""),
        ("12.6", ">=13.0", "", ""),
        ("13.0", ">=12.6", "admits hosts with CUDA 12.6, whose drivers cannot run", ""),
        ("12.8", "==11.8", "admits hosts with CUDA 11.8", ""),
        ("12.8", ">=12.4", "", "admits hosts with CUDA 12.4"),
        ("12.8", None, "", "does not require a GPU"),
        ("cpu", ">=12.6", "is a build for CPUs", ""),
        ("cpu", None, "", ""),
    ],
)
def test_whether_torch_fits_the_hosts(built: str, asked: str | None, error: str, warning: str) -> None:
    errors, warnings = fit_problems(TorchBuild(built, "uv.lock"), asked)
    assert [error in text for text in errors] == [True] * bool(error)
    assert [warning in text for text in warnings] == [True] * bool(warning)


def test_engines_that_are_not_there() -> None:
    with pytest.raises(EngineError, match=r"'kaniko' is not installed.*docker, podman, buildah"):
        find_engine("kaniko --fast", which=lambda name: None)
    with pytest.raises(EngineError, match="none of docker, podman and buildah is installed"):
        find_engine(which=lambda name: None)
    chosen = find_engine(which=lambda name: f"/bin/{name}" if name in ("podman", "buildah") else None)
    assert chosen.command == ("podman",)
