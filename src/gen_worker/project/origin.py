"""Which gen-worker is installed, and where it came from.

On the public package index, the name gen-worker belongs to another project. Its versions satisfy our constraints, its
modules have some of our names, and it has no `cozyctl`. So the version alone proves nothing: our distribution is
recognised by its command, and projects name a source (a git address, a wheel), never the bare name.
"""

from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path
from urllib.parse import unquote, urlsplit

import msgspec

from gen_worker.project.toml_files import read_toml
from gen_worker.project.wheel import wheel_name

NAME = "gen-worker"
COMMAND = ("cozyctl", "gen_worker.cli.main:main")
# The one of our dependencies that the other package does not have.
OURS_DEPENDS_ON = frozenset({"click", "httptools", "starlette"})
OTHER = f"another project's package, which is called {NAME} on the package index"


class Origin(msgspec.Struct, frozen=True):
    """Where an installed distribution came from, by PEP 610. `requirement` is what an installer takes: a git address,
    or a URL.

    It is empty for a distribution from a package index, and for one from this machine (`local`): a clone or a wheel.
    """

    local: str = ""
    git: str = ""
    commit: str = ""
    subdirectory: str = ""
    url: str = ""

    @property
    def requirement(self) -> str:
        if self.git:
            return f"git+{self.git}@{self.commit}{f'#subdirectory={self.subdirectory}' if self.subdirectory else ''}"
        return self.url

    @property
    def source(self) -> str:
        """The value for `[tool.uv.sources] gen-worker` in pyproject.toml; `""` when a wheel must be built first, or an index has it."""
        if self.git:
            within = f', subdirectory = "{self.subdirectory}"' if self.subdirectory else ""
            return f'{{ git = "{self.git}", rev = "{self.commit}"{within} }}'
        return f'{{ url = "{self.url}" }}' if self.url else ""

    @property
    def install(self) -> str:
        """The command that installs it again."""
        return f"pip install '{NAME} @ {self.requirement}'" if self.requirement else f"pip install {self.local or 'CLONE-OF-GEN-WORKER'}"


def own_origin() -> Origin:
    """Where the gen-worker of this environment came from."""
    found = _installed()
    return origin_of(found) if found is not None and is_ours(found) else Origin()


def origin_of(distribution: metadata.Distribution) -> Origin:
    """Its `direct_url.json`; an empty `Origin` when it came from an index or the file is unreadable."""
    try:
        said = msgspec.json.decode(distribution.read_text("direct_url.json") or "{}", type=dict[str, object])
    except (msgspec.DecodeError, OSError):
        return Origin()
    url, subdirectory = said.get("url"), said.get("subdirectory")
    if not isinstance(url, str) or not url:
        return Origin()
    path = unquote(urlsplit(url).path) if url.startswith("file:") else ""
    vcs = said.get("vcs_info")
    if path or not isinstance(vcs, dict) or vcs.get("vcs") != "git" or not isinstance(vcs.get("commit_id"), str):
        return Origin(local=path) if path else Origin(url=url)
    return Origin(git=url, commit=str(vcs["commit_id"]), subdirectory=subdirectory if isinstance(subdirectory, str) else "")


def is_ours(distribution: metadata.Distribution) -> bool:
    """Whether a distribution called gen-worker is this project's."""
    return any(entry.group == "console_scripts" and (entry.name, entry.value) == COMMAND for entry in distribution.entry_points)


def foreign_problem() -> str | None:
    """Why the gen-worker in this environment is not ours. Our code may still be running, from a folder on PYTHONPATH."""
    found = _installed()
    if found is None or is_ours(found):
        return None
    return f"{NAME} {found.version} in this environment is {OTHER}; run: pip uninstall -y {NAME} && {Origin().install}"


def installed_version() -> str | None:
    """The version of the gen-worker in this environment; None when our code runs from a folder without being installed."""
    found = _installed()
    return found.version if found is not None else None


def environment_problem(root: Path) -> str | None:
    """The same for the environment that uv keeps in the project's folder."""
    for folder in [*sorted((root / ".venv").glob("lib/python*/site-packages")), root / ".venv/Lib/site-packages"]:
        for found in _named(folder):
            if not is_ours(found):
                return f"{NAME} {found.version} in {folder.relative_to(root)} is {OTHER}; {_mend(root)}"
    return None


def lock_problem(root: Path, packages: Iterable[dict[str, object]]) -> str | None:
    """The same for the `package` tables of uv.lock."""
    for package in packages:
        source = package.get("source")
        if package.get("name") == NAME and isinstance(source, dict) and "registry" in source:
            listed = package.get("dependencies")
            names = {each.get("name") for each in listed if isinstance(each, dict)} if isinstance(listed, list) else set()
            if not names >= OURS_DEPENDS_ON:
                return f"uv.lock has {NAME} {package.get('version', '')} from {source['registry']}: {OTHER}; {_mend(root)}"
    return None


def source_warning(root: Path) -> str | None:
    """A warning that pyproject.toml names no source for gen-worker although the installed one did not come from an index."""
    if own_origin() == Origin() or _names_source(root):
        return None
    return f"pyproject.toml does not say where {NAME} comes from, so `uv lock` takes {OTHER}; {source_lines(root)}"


def source_lines(root: Path) -> str:
    """The lines to add to pyproject.toml so that it installs the gen-worker that is installed here."""
    here = own_origin()
    if here.source:
        return f"add to pyproject.toml: [tool.uv.sources] {NAME} = {here.source}"
    wheel = wheel_name(installed_version() or "VERSION")
    made = "" if (root / wheel).is_file() else f", and make that wheel here: pip wheel --no-deps -w . {here.local or 'CLONE-OF-GEN-WORKER'}"
    return f'add to pyproject.toml: [tool.uv.sources] {NAME} = {{ path = "{wheel}" }}{made}'


def _mend(root: Path) -> str:
    """What to write and to run so that a project gets this gen-worker."""
    return f"{'' if _names_source(root) else source_lines(root) + ', then '}run: uv lock && uv sync"


def _names_source(root: Path) -> bool:
    project = read_toml(root / "pyproject.toml")
    listed = _table(project, "project").get("dependencies")
    items = [item.replace("_", "-") for item in listed if isinstance(item, str)] if isinstance(listed, list) else []
    sources = _table(_table(_table(project, "tool"), "uv"), "sources")
    return any(item.startswith(NAME) and "@" in item for item in items) or any(key.replace("_", "-").lower() == NAME for key in sources)


def _installed() -> metadata.Distribution | None:
    try:
        return metadata.distribution(NAME)
    except metadata.PackageNotFoundError:
        return None


def _named(folder: Path) -> Iterator[metadata.Distribution]:
    if folder.is_dir():
        yield from metadata.distributions(name=NAME, path=[str(folder)])


def _table(table: dict[str, object], key: str) -> dict[str, object]:
    found = table.get(key)
    return found if isinstance(found, dict) else {}
