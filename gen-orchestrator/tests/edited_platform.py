"""A platform whose project was edited once, for tests of the differences between two releases."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from platform_process import PlatformProcess, write_project

TAG = "/v1/endpoints/local/probe/functions/{}/tags/{}"


def release_at(platform: PlatformProcess, tag: str, function: str = "version") -> str:
    return str(platform.http.get(TAG.format(function, tag)).json()["release_id"])


@contextmanager
def edited_platform(folder: Path, code: str, toml: str, function: str = "version") -> Iterator[PlatformProcess]:
    """The probe with `code` and `toml` added. VERSION is 2 at `dev`, and 1 at `prod`; waited for by the tag of `function`, since tags move one by one."""
    project = write_project(folder / "probe")
    main, settings = project / "src" / "probe" / "main.py", project / "cozy.toml"
    main.write_text(main.read_text() + code)
    settings.write_text(settings.read_text() + toml)
    started = PlatformProcess(project, folder / "data")
    try:
        main.write_text(main.read_text().replace("VERSION = 1", "VERSION = 2"))
        started.until(lambda: release_at(started, "dev", function) != release_at(started, "prod", function))
        yield started
    finally:
        started.close()
