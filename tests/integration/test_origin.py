"""The index has another package named gen-worker: projects say where theirs comes from, and a foreign one is refused."""

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest
from tests.end_to_end.test_cli import cozyctl

from gen_worker.project.origin import Origin, is_ours, lock_problem, origin_of

FUNCTION = "class In(msgspec.Struct): ...\n\n@worker_function\ndef f(ctx: ActionContext, payload: In) -> In: ...\n"


def distribution(folder: Path, version: str = "0.2.1", *, direct_url: object = None, entry_points: str = "") -> metadata.Distribution:
    """The metadata of an installed package called gen-worker."""
    info = folder / f"gen_worker-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: gen-worker\nVersion: {version}\n")
    if direct_url is not None:
        (info / "direct_url.json").write_text(json.dumps(direct_url))
    if entry_points:
        (info / "entry_points.txt").write_text(entry_points)
    return metadata.Distribution.at(info)


@pytest.mark.parametrize(
    ("direct_url", "origin"),
    [
        (None, Origin()),
        ({"url": "file:///clones/gen%20worker", "dir_info": {"editable": True}}, Origin(local="/clones/gen worker")),
        ({"url": "file:///w/gen_worker-0.2.0-py3-none-any.whl", "archive_info": {}}, Origin(local="/w/gen_worker-0.2.0-py3-none-any.whl")),
        (
            {"url": "https://git.example/g.git", "vcs_info": {"vcs": "git", "commit_id": "c0ffee"}},
            Origin(git="https://git.example/g.git", commit="c0ffee"),
        ),
        ({"url": "file:///clones/g", "vcs_info": {"vcs": "git", "commit_id": "c0ffee"}}, Origin(local="/clones/g")),
        ({"url": "https://files.example/g.whl", "archive_info": {}}, Origin(url="https://files.example/g.whl")),
        ({"url": 5}, Origin()),
    ],
)
def test_where_an_installed_package_came_from(tmp_path: Path, direct_url: object, origin: Origin) -> None:
    assert origin_of(distribution(tmp_path, direct_url=direct_url)) == origin


def test_a_git_origin_becomes_source_and_requirement() -> None:
    origin = Origin(git="https://git.example/g.git", commit="c0ffee", subdirectory="python")
    assert tomllib.loads(f"x = {origin.source}")["x"] == {"git": "https://git.example/g.git", "rev": "c0ffee", "subdirectory": "python"}
    assert origin.requirement == "git+https://git.example/g.git@c0ffee#subdirectory=python"


def test_ours_is_known_by_its_command_not_by_its_version(tmp_path: Path) -> None:
    assert not is_ours(distribution(tmp_path / "a", "0.2.0"))
    assert not is_ours(distribution(tmp_path / "b", "0.2.0", entry_points="[console_scripts]\ncozyctl = other.cli:main\n"))
    assert is_ours(distribution(tmp_path / "c", "9", entry_points="[console_scripts]\ncozyctl = gen_worker.cli.main:main\n"))
    assert is_ours(metadata.distribution("gen-worker"))


def test_a_new_project_brings_the_gen_worker_that_made_it(tmp_path: Path) -> None:
    made = cozyctl("init", "kite", "--json", cwd=tmp_path)
    (wheel,) = (tmp_path / "kite").glob("*.whl")
    assert wheel.name in json.loads(made.stdout)["files"]
    project = tomllib.loads((tmp_path / "kite/pyproject.toml").read_text())
    assert project["tool"]["uv"]["sources"]["gen-worker"] == {"path": wheel.name}
    assert f'ARG GEN_WORKER_SPEC="{wheel.name}"' in (tmp_path / "kite/Dockerfile").read_text()
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "-q", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--target", str(tmp_path / "there"), str(wheel)], check=True)
    code = "import gen_worker, importlib.metadata as m; print(gen_worker.__file__, m.version('gen-worker'))"
    env = {**os.environ, "PYTHONPATH": str(tmp_path / "there")}
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env, cwd=tmp_path)
    assert found.stdout.split() == [str(tmp_path / "there/gen_worker/__init__.py"), metadata.version("gen-worker")]
    first = wheel.read_bytes()
    cozyctl("init", "kite2", cwd=tmp_path)
    assert next((tmp_path / "kite2").glob("*.whl")).read_bytes() == first


def test_a_foreign_package_in_the_projects_environment(tmp_path: Path) -> None:
    cozyctl("init", "kite", cwd=tmp_path)
    distribution(tmp_path / "kite/.venv/lib/python3.12/site-packages")
    found = cozyctl("check", "--json", cwd=tmp_path / "kite")
    (error,) = json.loads(found.stdout)["errors"]
    assert found.returncode == 1
    assert "gen-worker 0.2.1 in .venv/lib/python3.12/site-packages is another project's package" in error
    assert error.endswith("; run: uv lock && uv sync")


def test_a_foreign_package_in_the_lock() -> None:
    package: dict[str, object] = {"name": "gen-worker", "version": "0.2.1", "source": {"registry": "https://index.example/simple"}}
    theirs = {**package, "dependencies": [{"name": "aiohttp"}, {"name": "msgspec"}]}
    ours = {**package, "dependencies": [{"name": name} for name in ("click", "httptools", "msgspec", "starlette")]}
    assert "another project's package" in (lock_problem(Path(), [theirs]) or "")
    assert lock_problem(Path(), [ours]) is None
    assert lock_problem(Path(), [{**theirs, "source": {"path": "x.whl"}}]) is None


def test_a_foreign_package_in_this_environment(project: Callable[..., Path], tmp_path: Path) -> None:
    folder = project(FUNCTION)
    distribution(tmp_path / "foreign")
    env = {**os.environ, "PYTHONPATH": str(tmp_path / "foreign"), "SCHEDULER_PUBLIC_ADDR": "127.0.0.1:9", "WORKER_JWT": "t"}
    for module, status in (("gen_worker.discover", 1), ("gen_worker.entrypoint", 2)):
        found = subprocess.run([sys.executable, "-m", module], cwd=folder, capture_output=True, text=True, check=False, env=env, timeout=60)
        assert found.returncode == status, found.stderr
        assert found.stdout == ""
        assert "gen-worker 0.2.1 in this environment is another project's package" in found.stderr
        assert "pip uninstall -y gen-worker && pip install" in found.stderr
    assert "another project's package" in cozyctl("run", "f", cwd=folder, env=env).stderr


def test_a_project_that_names_no_source_is_warned(tmp_path: Path) -> None:
    cozyctl("init", "kite", cwd=tmp_path)
    file = tmp_path / "kite/pyproject.toml"
    file.write_text(file.read_text().replace("gen-worker = {", "# gen-worker = {"))
    found = json.loads(cozyctl("check", "--json", cwd=tmp_path / "kite").stdout)
    assert found["ok"] is True
    (warning,) = [text for text in found["warnings"] if "does not say where gen-worker comes from" in text]
    (wheel,) = (tmp_path / "kite").glob("*.whl")
    assert warning.endswith(f'add to pyproject.toml: [tool.uv.sources] gen-worker = {{ path = "{wheel.name}" }}')
    wheel.unlink()
    found = json.loads(cozyctl("check", "--json", cwd=tmp_path / "kite").stdout)
    assert any("make that wheel here: pip wheel --no-deps -w . " in text for text in found["warnings"])


def test_versions_and_function_tables_are_checked_everywhere(project: Callable[..., Path]) -> None:
    folder = project(FUNCTION, "[functions.g]\ntimeout_s = 5\n")
    for verb in (["check"], ["run", "f"], ["discover"]):
        assert "cozy.toml:5: [functions.g] names no function of" in cozyctl(*verb, cwd=folder).stderr
    toml = folder / "cozy.toml"
    toml.write_text(toml.read_text().replace("functions.g", "functions.f").replace(">=0.2.0,<0.3.0", ">=0.3.0"))
    for verb in (["check"], ["run", "f"], ["dev", "--no-reload", "--listen", "127.0.0.1:0"]):
        found = cozyctl(*verb, cwd=folder)
        assert found.returncode == 1
        assert "does not satisfy gen_worker = '>=0.3.0'" in found.stderr
