"""The README's Python examples are functions that discovery accepts, its model cache example runs, its cozy.toml is read."""

import importlib
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.conftest import ROOT

import gen_worker
from gen_worker.project.cozy_toml import load_cozy_toml

BLOCKS = re.findall(r"```(\w+)\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
PYTHON = [text for language, text in BLOCKS if language == "python"]
PRELUDE = "class Input(msgspec.Struct):\n    prompt: str\n\nclass Output(msgspec.Struct):\n    text: str\n\n"
PYPROJECT = '[project]\nname = "readme"\nversion = "1"\ndependencies = ["diffusers"]\n'


@pytest.mark.parametrize("code", [text for text in PYTHON if "@worker_function" in text])
def test_functions(project: Callable[..., Path], code: str) -> None:
    folder = project(PRELUDE + code, '[models]\nsd15 = "hf:stable-diffusion-v1-5/stable-diffusion-v1-5"\nflux = "hf:o/r"\n')
    (folder / "pyproject.toml").write_text(PYPROJECT)
    found = subprocess.run([sys.executable, "-m", "gen_worker.discover"], cwd=folder, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr


def test_model_cache() -> None:
    (code,) = [text for text in PYTHON if "ModelCache(" in text]
    names: dict[str, object] = {"pipeline": object()}
    exec(code, names)
    assert names["cache"].get_vram_models() == ["model-a"]  # type: ignore[attr-defined]


def test_cozy_toml(tmp_path: Path) -> None:
    (text,) = [text for language, text in BLOCKS if language == "toml" and "schema_version" in text]
    (tmp_path / "cozy.toml").write_text(text)
    assert load_cozy_toml(tmp_path / "cozy.toml").models_of("draw").keys() == {"small"}


def test_links_lead_somewhere() -> None:
    targets = re.findall(r"\]\(([^)\s#]+)", (ROOT / "README.md").read_text())
    assert [target for target in targets if not re.match(r"[a-z]+:", target) and not (ROOT / target).exists()] == []


def test_names_are_the_same_by_topic() -> None:
    """The public README imports them from these modules, ours from the package."""
    for module, names in (
        ("gen_worker.injection", ("ModelRef", "ModelRefSource")),
        ("gen_worker.errors", ("RetryableError", "ValidationError")),
    ):
        for name in names:
            assert getattr(importlib.import_module(module), name) is getattr(gen_worker, name)
