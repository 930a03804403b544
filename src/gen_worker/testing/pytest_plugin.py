"""pytest fixture `endpoint`: the functions of a project, run by a real worker.

    def test_generate(endpoint):
        assert endpoint.run("generate", {"prompt": "world"}) == {"text": "Hello, world!"}

The project is the folder of cozy.toml above the tests (or `endpoint_root` in pytest's configuration); local folders for its models come
from `endpoint_models`, lines of KEY=FOLDER.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from gen_worker.testing.end_to_end import EndToEnd


def pytest_addoption(parser: pytest.Parser) -> None:
    """Settings of the plugin."""
    parser.addini("endpoint_root", "folder of the endpoint under test; default: the nearest one above with a cozy.toml", default="")
    parser.addini("endpoint_models", "local folders for model keys, KEY=FOLDER", type="linelist", default=[])


@pytest.fixture(scope="session")
def endpoint(request: pytest.FixtureRequest) -> "Iterator[EndToEnd]":
    """The project's functions, served by one worker process for the whole session."""
    # Imported here: a plugin is loaded in every pytest run, and most do not need gRPC.
    from gen_worker.testing.end_to_end import EndToEnd

    config = request.config
    root = _root(config)
    models = {}
    for line in config.getini("endpoint_models"):
        key, equals, folder = str(line).partition("=")
        if not equals:
            raise pytest.UsageError(f"endpoint_models: {line!r}; expected KEY=FOLDER")
        models[key.strip()] = (config.rootpath / folder.strip()).resolve()
    with EndToEnd(root, models=models) as running:
        yield running


def _root(config: pytest.Config) -> Path:
    named = str(config.getini("endpoint_root"))
    if named:
        return (config.rootpath / named).resolve()
    start = config.invocation_params.dir
    for folder in (start, *start.parents, config.rootpath):
        if (folder / "cozy.toml").is_file():
            return folder
    raise pytest.UsageError(f"no cozy.toml in {start} or above; set endpoint_root in pytest's configuration")
