"""What installers get to see of our variables."""

from gen_orchestrator.hub.environments import build_environment


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
