"""The page of settings lists every environment variable that the code reads, and no others."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytest.importorskip("gen_orchestrator", reason="the page has the platform's variables, too")
sys.path.insert(0, str(ROOT / "scripts"))
from reference_pages import setting_fields, setting_sections, settings_page  # noqa: E402

TREES = (ROOT / "src/gen_worker", ROOT / "gen-orchestrator/src/gen_orchestrator")
# Variables of the system, or said by one of our programs to another: nobody sets them.
NOT_SETTINGS = {
    "TERM",
    "TMPDIR",
    "SHELL",
    "VIRTUAL_ENV",
    "COZY_FUNCTION_MODULES",
    "GEN_ORCHESTRATOR_PID",
    "GEN_ORCHESTRATOR_OUTLIVED",
    "GRPC_VERBOSITY",
}
NOT_SETTINGS |= {"HOME", "PATH", "TMPDIR", "LD_LIBRARY_PATH"}
# Read by the libraries that we use.
OF_LIBRARIES = {"NO_COLOR", "OTEL_EXPORTER_OTLP_ENDPOINT"}


def read_in(tree: ast.AST) -> Iterator[str]:
    """Names in `env.get("X")`, `env["X"]`, `"X" in env` and `envvar="X"`, where `env` is any name that ends so or `os.environ`."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Attribute(value=env, attr="get"), args=[ast.Constant(value=str(name)), *_]) if _is_env(env):
                yield name
            case ast.Subscript(value=env, slice=ast.Constant(value=str(name)), ctx=ast.Load()) if _is_env(env):
                yield name
            case ast.Compare(left=ast.Constant(value=str(name)), ops=[ast.In() | ast.NotIn()], comparators=[env]) if _is_env(env):
                yield name
            case ast.keyword(arg="envvar", value=ast.Constant(value=str(name))):
                yield name


def _is_env(node: ast.AST) -> bool:
    match node:
        case ast.Attribute(attr="environ" | "env" | "_env") | ast.Name(id="env" | "environ"):
            return True
    return False


def test_every_variable_is_described_once() -> None:
    described = [name for section in setting_sections() for name in section["variables"]]
    assert len(described) == len(set(described))
    read = {name for tree in TREES for path in tree.rglob("*.py") for name in read_in(ast.parse(path.read_text())) if name.isupper()}
    there = (read | set(setting_fields())) - NOT_SETTINGS
    assert there - set(described) == set()
    assert set(described) - there - OF_LIBRARIES == set()


def test_the_page_has_defaults_and_ranges() -> None:
    page = settings_page()
    assert "| `WORKER_MAX_INPUT_FILE_BYTES` | 209715200 (200 MiB) |" in page
    assert "| `WORKER_EVICTION` | `score` |" in page
    assert "Range: seconds from 0.01 up to 3600." in page
