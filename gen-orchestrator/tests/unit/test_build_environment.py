"""Which of our variables installers can see."""

from pathlib import Path

import pytest

from gen_orchestrator.hub.environments import EnvironmentFailedError, build_environment, requirements_of


def test_uv_finds_packages_where_pip_does() -> None:
    pip = {
        "PIP_FIND_LINKS": "/wheels  https://torch.example/cpu",
        "PIP_INDEX_URL": "https://index.example/simple",
        "PIP_EXTRA_INDEX_URL": "a b",
    }
    found = build_environment({**pip, "PATH": "/bin", "COZY_API_KEY": "secret", "UV_INDEX_STRATEGY": "first-index"})
    assert found == {
        **pip, "PATH": "/bin", "UV_INDEX_STRATEGY": "first-index", "UV_FIND_LINKS": "/wheels,https://torch.example/cpu",
        "UV_DEFAULT_INDEX": "https://index.example/simple", "UV_EXTRA_INDEX_URL": "a b",
    }  # fmt: skip


def test_what_uv_was_told_itself_stands() -> None:
    assert build_environment({"PIP_FIND_LINKS": "/wheels", "UV_FIND_LINKS": "/mine"}) == {
        "PIP_FIND_LINKS": "/wheels",
        "UV_FIND_LINKS": "/mine",
    }


def write(folder: Path, dependencies: str) -> Path:
    (folder / "pyproject.toml").write_text(f"[project]\nname = 'x'\nversion = '1'\ndependencies = {dependencies}\n")
    return folder


def test_requirements_are_read_without_gen_worker(tmp_path: Path) -> None:
    text = '["numpy>=2 ", "gen_worker[torch]>=0.2", "Pillow[x]==11 ; python_version >= \'3.11\'", "y @ https://index.example/y-1-py3-none-any.whl"]'
    assert requirements_of(write(tmp_path, text)) == [
        "Pillow[x]==11 ; python_version >= '3.11'",
        "numpy>=2",
        "y @ https://index.example/y-1-py3-none-any.whl",
    ]


@pytest.mark.parametrize(
    "dependencies",
    [
        '["-r /etc/passwd"]', '["--index-url=http://127.0.0.1/"]', '["--target", "/"]', '[" -r x"]', '["./here"]', '["/etc"]', '[""]', '["a b"]',
        '["x @ file:///etc/passwd"]', '["x @ FILE:/etc/passwd"]', '["x @ ./y"]', '["x @ git+file:///y"]', '["numpy\\n-r /etc/passwd"]',
        '["numpy --hash=sha256:00"]', "[1]", "{a = 1}", '"numpy"',
    ],
)  # fmt: skip
def test_what_is_no_requirement_becomes_no_argument_of_an_installer(tmp_path: Path, dependencies: str) -> None:
    with pytest.raises(EnvironmentFailedError, match=r"pyproject\.toml"):
        requirements_of(write(tmp_path, dependencies))
