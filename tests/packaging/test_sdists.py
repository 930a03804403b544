"""The contents of the two source distributions: each has its own code, enough to build its wheel, and nothing of the other."""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from tests.conftest import ROOT

pytest.importorskip("hatchling")
PROTO = "gen-orchestrator/proto/"


def build(folder: Path, target: str, place: Path) -> Path:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(place)], cwd=folder, check=True, capture_output=True
    )
    (found,) = [path for path in place.iterdir() if path.suffix in (".whl", ".gz")]
    return found


def contents(archive: Path) -> set[str]:
    """Paths of its files, without the folder that an sdist puts around them."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as found:
            return set(found.namelist())
    with tarfile.open(archive) as found:
        return {name.partition("/")[2] for name in found.getnames()}


@pytest.mark.parametrize(
    ("folder", "package", "other"), [(".", "gen_worker", "gen_orchestrator"), ("gen-orchestrator", "gen_orchestrator", "gen_worker")]
)
def test_a_distribution_is_whole_and_holds_nothing_of_the_other(tmp_path: Path, folder: str, package: str, other: str) -> None:
    sdist = build(ROOT / folder, "sdist", tmp_path / "sdist")
    held = contents(sdist)
    here = {path.relative_to(ROOT / folder).as_posix() for path in (ROOT / folder / "src" / package).rglob("*") if path.is_file()}
    code = {path for path in here if "__pycache__" not in path}
    assert code <= held
    assert {"pyproject.toml", "README.md", "PKG-INFO"} <= held
    assert not [path for path in held if f"src/{other}/" in path or (path.startswith("gen-orchestrator/") and not path.startswith(PROTO))]
    assert not [path for path in held if path.startswith((".", "benchmarks/", "examples/")) and path != ".gitignore"]
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path / "out", filter="data")
    (unpacked,) = (tmp_path / "out").iterdir()
    shipped = contents(build(unpacked, "wheel", tmp_path / "wheel"))
    assert {path.removeprefix("src/") for path in code} <= shipped
    assert {path.partition("/")[0].partition("-")[0] for path in shipped} == {package}
