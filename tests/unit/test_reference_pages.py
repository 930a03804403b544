"""Reference pages written by hand are complete: keys of cozy.toml, events, metrics. Imports are written in one way."""

import re
from pathlib import Path

import pytest

from gen_worker import events
from gen_worker.project import cozy_toml

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"


def test_every_key_of_cozy_toml_is_on_its_page() -> None:
    page = (DOCS / "cozy-toml.md").read_text()
    tables = {"top": cozy_toml.TOP_KEYS, "functions": cozy_toml.FUNCTION_KEYS, "scaling": cozy_toml.SCALING_KEYS}
    tables |= {"dev": cozy_toml.DEV_KEYS, "resources": cozy_toml.RESOURCE_KEYS}
    missing = [
        (table, key)
        for table, keys in tables.items()
        for key in keys
        if not re.search(rf"(?m)^\[?(?:functions\.\w+\.)?{key}\b|^\[{key}", page)
    ]
    assert missing == []


def test_every_event_is_on_its_page() -> None:
    page = (DOCS / "metrics.md").read_text()
    names = {value for key, value in vars(events).items() if key.isupper() and isinstance(value, str) and "." in value}
    assert len(names) > 30
    assert {name for name in names if f"`{name}`" not in page and f"\n{name} " not in page and not _shortened(name, page)} == set()


def _shortened(name: str, page: str) -> bool:
    """`task.model_load.started` and `.completed`."""
    above, _, last = name.rpartition(".")
    in_run = re.search(r"```text\n(.*?)```", page, re.DOTALL)
    return (f"`{above}." in page and f"`.{last}`" in page) or (in_run is not None and name in in_run[1])


def test_every_metric_is_on_its_page() -> None:
    source = ROOT / "gen-orchestrator/src/gen_orchestrator/scheduling/metrics.py"
    if not source.exists():
        pytest.skip("needs the platform's source")
    names = set(re.findall(r'"((?:[a-z]+_)+(?:total|seconds|bytes|info|depth|progress)|workers)"', source.read_text()))
    page = (DOCS / "metrics.md").read_text()
    assert len(names) > 12
    assert {name for name in names if f"| `{name}` |" not in page} == set()
    assert {
        name for name in re.findall(r"(?m)^\| `([a-z_]+)` \| (?:gauge|counter|histogram)", page) if f'"{name}"' not in source.read_text()
    } == set()


def test_everything_imports_in_the_same_way() -> None:
    """What authors write with comes from `gen_worker`; the other modules are doors of their own."""
    doors = r"(?!client\b|tasks\b|testing\b|model_cache\b)"
    pages = [ROOT / "README.md", *DOCS.rglob("*.md"), ROOT / "src/gen_worker/project/templates.py", *ROOT.glob("examples/*/src/**/*.py")]
    pages += ROOT.glob("examples/*/README.md")
    others = [
        page.name for page in pages if "adr" not in page.parts and re.search(rf"from gen_worker\.{doors}\w+[\w.]* import", page.read_text())
    ]
    assert others == []
