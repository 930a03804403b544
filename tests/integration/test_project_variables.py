"""`[env]` of cozy.toml is set before the author's code is imported; variables that are already set stay."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gen_worker.dev.reload import ProjectFiles, reload_project
from gen_worker.discover import discover_manifest
from gen_worker.project.discovery import DiscoveryError
from gen_worker.project.served import load_baked, load_project

CODE = """
import os
MODE, LEVEL = os.environ.get("PROBE_MODE"), os.environ.get("PROBE_LEVEL")

class In(msgspec.Struct):
    pass

class Out(msgspec.Struct):
    mode: str | None
    level: str | None

@worker_function
def tell(ctx: ActionContext, payload: In) -> Out:
    return Out(MODE, LEVEL)
"""
ENV = '[env]\nPROBE_MODE = "warm"\nPROBE_LEVEL = "3"\n'


@pytest.fixture(autouse=True)
def _clean() -> Iterator[None]:
    yield
    for name in ("PROBE_MODE", "PROBE_LEVEL"):
        os.environ.pop(name, None)


def told_by(served: Any) -> tuple[str | None, str | None]:
    module = sys.modules[served.functions[0].module]
    return module.MODE, module.LEVEL


def test_run_has_the_variables_and_the_shell_wins(project: Callable[..., Path]) -> None:
    folder = project(CODE, ENV)
    command = [sys.executable, "-c", "from gen_worker.cli.main import main; main()", "run", "tell", "--json", "--folder", str(folder)]
    done = subprocess.run(command, env={**os.environ, "PROBE_LEVEL": ""}, capture_output=True, timeout=60, check=False)
    assert msgspec.json.decode(done.stdout)["output"] == {"mode": "warm", "level": ""}, done


def test_a_baked_manifest_brings_them_to_the_worker(project: Callable[..., Path], tmp_path: Path) -> None:
    folder = project(CODE, ENV)
    manifest = discover_manifest(folder)
    assert manifest["env"] == {"PROBE_MODE": "warm", "PROBE_LEVEL": "3"}
    for name in [name for name in sys.modules if name.startswith("demo_")]:
        del sys.modules[name]
    os.environ.pop("PROBE_MODE")
    os.environ["PROBE_LEVEL"] = "a secret of the platform"
    baked = tmp_path / "manifest.json"
    baked.write_bytes(msgspec.json.encode({**manifest, "env": {**manifest["env"], "WORKER_DEVICE": "cuda:7"}}))
    assert told_by(load_baked(baked, folder, dict(os.environ))) == ("warm", "a secret of the platform")
    assert "WORKER_DEVICE" not in os.environ  # however it came into the manifest


def test_a_reload_takes_up_changed_variables(project: Callable[..., Path]) -> None:
    folder = project(CODE, ENV)
    toml, main = folder / "cozy.toml", next(folder.rglob("main.py"))
    text = toml.read_text()
    files = ProjectFiles(folder, {**os.environ})
    files.read()
    assert told_by(load_project(folder, files.env)) == ("warm", "3")

    toml.write_text(text.replace('PROBE_MODE = "warm"', "").replace('"3"', '"44"'))
    files.read()
    assert told_by(reload_project(files)) == (None, "44")

    toml.write_text(text.replace("warm", "cold"))
    main.write_text(main.read_text() + "\nraise ValueError('broken')\n")
    files.read()
    with pytest.raises(DiscoveryError):
        reload_project(files)
    assert ("PROBE_MODE" in os.environ, os.environ["PROBE_LEVEL"]) == (False, "44")  # what is served on was imported so
