"""Reading a project's uv.lock."""

from pathlib import Path

import pytest

from gen_orchestrator.hub.lock_files import LockError, Pinned, pinned_in

PYPROJECT = '[project]\nname = "My_Project"\nversion = "1"\ndependencies = ["a", "gen-worker"]\n'
HEAD = 'version = 1\nrevision = 3\nrequires-python = ">=3.11"\n'


def package(name: str, version: str, more: str = "", source: str = 'registry = "https://index.example/simple"') -> str:
    files = f'wheels = [{{ url = "https://index.example/{name}.whl", hash = "sha256:{name}w" }}]\n'
    sdist = f'sdist = {{ url = "https://index.example/{name}.tar.gz", hash = "sha256:{name}s" }}\n'
    return f'[[package]]\nname = "{name}"\nversion = "{version}"\nsource = {{ {source} }}\n{files}{sdist}{more}\n'


def project(*needs: str, source: str = 'virtual = "."') -> str:
    listed = ", ".join(needs)
    return f'[[package]]\nname = "my-project"\nversion = "1"\nsource = {{ {source} }}\ndependencies = [{listed}]\n'


def read(folder: Path, *parts: str, wanted: tuple[str, ...] = ("a",), **markers: str) -> list[Pinned] | None:
    (folder / "pyproject.toml").write_text(PYPROJECT)
    (folder / "uv.lock").write_text(HEAD + "\n".join(parts))
    return pinned_in(folder, wanted, markers)


def names(found: list[Pinned] | None) -> list[str]:
    return [each.requirement() for each in found or ()]


def test_without_a_lock_nothing_is_said(tmp_path: Path) -> None:
    assert pinned_in(tmp_path, ("a",)) is None


def test_what_the_project_needs_here_and_nothing_else(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        project('{ name = "a", extra = ["fast"] }', '{ name = "gen-worker" }'),
        '[package.dev-dependencies]\ndev = [{ name = "tool" }]\n',
        package("a", "1.0", 'dependencies = [{ name = "b" }, { name = "win", marker = "sys_platform == \'win32\'" }]\n')
        + '[package.optional-dependencies]\nfast = [{ name = "c" }]\nslow = [{ name = "d" }]\n',
        package("b", "2.0", 'dependencies = [{ name = "a" }]\n'),
        package("c", "3.0"),
        package("d", "4.0"),
        package("tool", "5.0"),
        package("win", "6.0"),
        package("gen-worker", "0.3.2", 'dependencies = [{ name = "d" }]\n'),
        sys_platform="linux",
    )
    assert names(found) == ["a==1.0", "b==2.0", "c==3.0"]
    assert found is not None
    assert found[0].hashed() == "a==1.0 --hash=sha256:as --hash=sha256:aw"


def test_one_of_several_versions_is_named_by_who_needs_it(tmp_path: Path) -> None:
    parts = (
        project('{ name = "a", version = "1.0", marker = "sys_platform == \'linux\'" }', '{ name = "a", version = "2.0", marker = "sys_platform == \'win32\'" }'),
        package("a", "1.0"),
        package("a", "2.0"),
    )  # fmt: skip
    assert names(read(tmp_path, *parts, sys_platform="linux")) == ["a==1.0"]
    assert names(read(tmp_path, *parts, sys_platform="win32")) == ["a==2.0"]


@pytest.mark.parametrize(
    ("parts", "word"),
    [
        ((project('{ name = "b" }'), package("b", "1.0")), "does not have a, which pyproject.toml names"),
        ((package("a", "1.0"),), "project 'My_Project' itself"),
        ((project('{ name = "a" }'),), "0 entries for 'a'"),
        ((project('{ name = "a" }'), package("a", "1"), package("a", "2")), "2 entries for 'a'"),
        ((project('{ name = "a" }'), package("a", "1", source='git = "https://example.com/a"')), "takes a from git"),
        ((project('{ name = "a" }'), package("a", "1", source='path = "../a"')), "takes a from path"),
        ((project('{ name = "a", marker = "nonsense" }'), package("a", "1")), "the marker 'nonsense'"),
        (("[[package",), "cannot be read"),
    ],
)
def test_a_lock_that_cannot_be_followed_says_why(tmp_path: Path, parts: tuple[str, ...], word: str) -> None:
    with pytest.raises(LockError) as refused:
        read(tmp_path, *parts)
    assert word in str(refused.value)


def test_a_lock_for_another_python_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LockError, match=r"this platform runs 3\.10"):
        read(tmp_path, project('{ name = "a" }'), package("a", "1"), python_full_version="3.10.1")
