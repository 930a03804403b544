"""The pytest fixture `endpoint`: the functions of a project, run by a real worker.

    def test_generate(endpoint):
        assert endpoint.run("generate", {"prompt": "world"}) == {"text": "Hello, world!"}

The project is the nearest folder with a cozy.toml above the tests (or `endpoint_root` in pytest's configuration). Local
folders for its models come from `endpoint_models`, lines of KEY=FOLDER or KEY=pkg:PACKAGE/FOLDER. Tests may import the
project's code from its `src/`.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from gen_worker.testing.end_to_end import EndToEnd


def pytest_addoption(parser: pytest.Parser) -> None:
    """Settings of the plugin."""
    parser.addini("endpoint_root", "folder of the endpoint under test; default: the nearest one above with a cozy.toml", default="")
    parser.addini("endpoint_models", "local folders for model keys, KEY=FOLDER or KEY=pkg:PACKAGE/FOLDER", type="linelist", default=[])


def pytest_configure(config: pytest.Config) -> None:
    """Let the project's tests import its code, as the worker does."""
    root = _find_root(config)
    for folder in (root, root / "src") if root is not None else ():
        if folder.is_dir() and str(folder) not in sys.path:
            sys.path.insert(0, str(folder))


@pytest.fixture(scope="session")
def endpoint(request: pytest.FixtureRequest) -> "Iterator[EndToEnd]":
    """The project's functions, served by one worker process for the whole session."""
    # Imported here: a plugin is loaded in every pytest run, and most of them do not need gRPC.
    from gen_worker.sources.source import OverrideError, parse_overrides
    from gen_worker.testing.end_to_end import EndToEnd

    config = request.config
    try:
        models = parse_overrides([str(line) for line in config.getini("endpoint_models")], config.rootpath)
    except OverrideError as exc:
        raise pytest.UsageError(f"endpoint_models: {exc}") from None
    with EndToEnd(_root(config), models=models) as running:
        yield running


def _root(config: pytest.Config) -> Path:
    found = _find_root(config)
    if found is None:
        raise pytest.UsageError(f"no cozy.toml in {config.invocation_params.dir} or above; set endpoint_root in pytest's configuration")
    return found


def _find_root(config: pytest.Config) -> Path | None:
    named = str(config.getini("endpoint_root"))
    if named:
        return (config.rootpath / named).resolve()
    start = config.invocation_params.dir
    return next((folder for folder in (start, *start.parents, config.rootpath) if (folder / "cozy.toml").is_file()), None)
