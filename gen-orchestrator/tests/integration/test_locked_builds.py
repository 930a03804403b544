"""Published projects with dependencies: the packages in uv.lock are installed, and no others."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hello_project import HELLO, write_hello
from platform_process import COZYCTL, PlatformProcess, write_project
from wheels import make_wheel, repack_needs_of

CODE = HELLO.replace("import msgspec", "import msgspec, tinydep, tinybelow").replace(
    "hello {payload.name}", "{tinydep.VERSION} {tinybelow.VERSION}"
)
LOCK = """\
version = 1
requires-python = ">=3.11"

[[package]]
name = "locked"
version = "0.1.0"
source = {{ virtual = "." }}
dependencies = [{{ name = "gen-worker" }}, {{ name = "tinydep" }}]

[[package]]
name = "gen-worker"
version = "0.3.2"
source = {{ registry = "https://index.example/simple" }}

[[package]]
name = "tinydep"
version = "1.0"
source = {{ registry = "https://index.example/simple" }}
dependencies = [{{ name = "tinybelow" }}]
wheels = [{{ url = "https://index.example/tinydep-1.0-py3-none-any.whl", hash = "{tinydep}" }}]

[[package]]
name = "tinybelow"
version = "1.0"
source = {{ registry = "https://index.example/simple" }}
wheels = [{{ url = "https://index.example/tinybelow-1.0-py3-none-any.whl", hash = "{tinybelow}" }}]
"""


HASHES: dict[str, str] = {}


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What stands in for a package index."""
    folder = tmp_path_factory.mktemp("wheels")
    for name in ("tinydep", "tinybelow"):
        HASHES[name] = make_wheel(folder, name, "1.0", 'VERSION = "1.0"\n')
        make_wheel(folder, name, "2.0", 'VERSION = "2.0"\n')  # what an installer would take without the lock
    repack_needs_of(folder, "gen-worker")
    return folder


def uv_alone(folder: Path) -> str:
    """A folder for PATH that has uv and nothing else."""
    folder.mkdir()
    found = shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent))
    if found is None:
        pytest.skip("uv is not installed")
    (folder / "uv").symlink_to(found)
    return str(folder)


def without_uv(path: str) -> str:
    return os.pathsep.join(each for each in path.split(os.pathsep) if not (Path(each) / "uv").exists())


@pytest.mark.parametrize("installer", ["pip", "uv"])
def test_a_build_keeps_to_its_lock(tmp_path: Path, wheels: Path, installer: str) -> None:
    path = without_uv(os.environ["PATH"])
    if installer == "uv":
        path = os.pathsep.join([uv_alone(tmp_path / "bin"), path])
    index = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels), "PIP_NO_COMPILE": "1"}  # uv is told where the wheels are, too
    index |= {"UV_OFFLINE": "1", "UV_CACHE_DIR": str(tmp_path / "uv-cache")}
    folder = write_hello(tmp_path / "locked", "locked", CODE)
    (folder / "pyproject.toml").write_text('[project]\nname = "locked"\nversion = "0.1.0"\ndependencies = ["gen-worker", "tinydep>=1"]\n')
    (folder / "uv.lock").write_text(LOCK.format(**HASHES))
    platform = PlatformProcess(write_project(tmp_path / "probe"), tmp_path / "data", env={**index, "PATH": path})
    try:

        def publish() -> "subprocess.CompletedProcess[str]":
            env = {**os.environ, "COZY_URL": platform.url, "COLUMNS": "200"}
            command = [str(COZYCTL), "publish", "--folder", str(folder)]
            return subprocess.run(command, env=env, capture_output=True, text=True, timeout=300, check=False)

        done = publish()
        assert done.returncode == 0, done.stderr
        assert "installing what uv.lock names: tinybelow==1.0, tinydep==1.0" in done.stderr
        answer = platform.http.post("/v1/local/locked/greet", json={"payload": {}})
        assert answer.json()["output"]["text"] == "1.0 1.0", answer.text
        [made] = (platform.data / "environments").glob("*/pyvenv.cfg")
        assert any(line.startswith("uv = ") for line in made.read_text().splitlines()) == (installer == "uv"), "who made it"
        closed = {path.name: oct(path.stat().st_mode & 0o077) for path in platform.data.iterdir() if path.stat().st_mode & 0o077}
        assert set(closed) <= ({"environments"} if os.geteuid() == 0 else set(closed)), "all but the way to the environments is closed"

        (folder / "uv.lock").write_text(LOCK.format(tinydep=f"sha256:{'0' * 64}", tinybelow=HASHES["tinybelow"]))
        done = publish()
        assert (done.returncode, "tinydep" in done.stderr, "hash" in done.stderr.lower()) == (1, True, True), done.stderr
        (folder / "pyproject.toml").write_text('[project]\nname = "locked"\nversion = "0.1.0"\ndependencies = ["tinydep", "other"]\n')
        done = publish()
        assert (done.returncode, "uv.lock does not have other" in done.stderr) == (1, True), done.stderr
    finally:
        platform.close()
