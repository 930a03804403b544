"""Folders, switches and tokens are read like huggingface_hub reads them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.blob_server import BlobServer
from tests.integration.test_hub_refusals import FILES, Machine, server  # noqa: F401 - a fixture

from gen_worker.errors import FatalError
from gen_worker.settings import ModelSettings
from gen_worker.sources.hf_account import HfAccount

ENVIRONMENTS: list[dict[str, str]] = [
    {},
    {"HF_HOME": "/x/home"},
    {"HF_HOME": "~/hf home"},
    {"HF_HOME": "$BASE/hf"},
    {"HF_HOME": "${BASE}/hf", "HF_HUB_CACHE": "$BASE/$NOT_SET/cache"},
    {"XDG_CACHE_HOME": "/x/cache"},
    {"XDG_CACHE_HOME": "~/cache", "HF_HOME": "/x/home"},
    {"HF_HUB_CACHE": "/x/hub"},
    {"HUGGINGFACE_HUB_CACHE": "/x/old"},
    {"HUGGINGFACE_HUB_CACHE": "/x/old", "HF_HUB_CACHE": "~/new"},
    {"HF_TOKEN_PATH": "/x/token"},
    {"HF_TOKEN_PATH": "~/token", "HF_HOME": "/x"},
    {"HF_ENDPOINT": "http://mirror.test/"},
    {"HF_ENDPOINT": "http://mirror.test/hf//"},
    *({"HF_HUB_OFFLINE": value} for value in ("1", "ON", "on", "Yes", "TRUE", "true", "0", "off", "no", "false", "2", "y", "t")),
    {"TRANSFORMERS_OFFLINE": "1"},
    {"HF_HUB_OFFLINE": "0", "TRANSFORMERS_OFFLINE": "1"},
    {"HF_TOKEN": "hf_a"},
    {"HF_TOKEN": " hf_a\n"},
    {"HUGGING_FACE_HUB_TOKEN": "hf_b"},
    {"HF_TOKEN": "hf_a", "HUGGING_FACE_HUB_TOKEN": "hf_b"},
]


def test_every_variable_means_what_it_means_to_the_library(tmp_path: Path) -> None:
    hub = pytest.importorskip("huggingface_hub")
    code = f"import os, sys\nfor env in {ENVIRONMENTS!r}:\n    os.environ.update(dict(HOME=os.environ['HOME'], **env))\n"
    # One process an environment would take long: the constants are read anew by a reload.
    code += (
        "    import importlib, json, huggingface_hub, huggingface_hub.constants as c\n"
        "    importlib.reload(c)\n"
        "    print(json.dumps([c.HF_HUB_CACHE, c.HF_TOKEN_PATH, c.ENDPOINT, c.HF_HUB_OFFLINE, huggingface_hub.get_token() or '']))\n"
        "    for name in env: del os.environ[name]\n"
    )
    base = {"HOME": str(tmp_path), "BASE": "/base", "PATH": "/usr/bin"}
    done = subprocess.run([sys.executable, "-c", code], env=base, capture_output=True, text=True, check=True)
    assert hub
    for env, line in zip(ENVIRONMENTS, done.stdout.splitlines(), strict=True):
        home = {"HOME": str(tmp_path)}
        account = _account(env | {"BASE": "/base"} | home, tmp_path)
        ours = [str(account.cache), str(account.token_path), account.endpoint, account.is_offline, account.token().value]
        assert ours == json.loads(line), env


def _account(env: dict[str, str], home: Path) -> HfAccount:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(home))  # what `~` is, for pathlib
        return HfAccount.of(ModelSettings.from_env(env))


def test_the_file_that_a_login_writes(tmp_path: Path) -> None:
    settings = ModelSettings.from_env({"HF_HOME": str(tmp_path)})
    account = HfAccount.of(settings)
    assert account.token().value == ""
    (tmp_path / "token").write_text("hf_file\n")
    assert (account.token().value, "hf auth login" in account.token().source) == ("hf_file", True)
    named = HfAccount.of(ModelSettings.from_env({"HF_HOME": str(tmp_path), "HF_TOKEN": "hf_env"}))
    assert (named.token().value, named.token().source) == ("hf_env", "the variable HF_TOKEN")
    without = HfAccount.of(ModelSettings.from_env({"HF_HOME": str(tmp_path), "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1"}))
    assert without.token().value == ""
    assert "hf_" not in repr(named) + repr(account.token())
    (tmp_path / "token").write_bytes(b"\xff\xfe\n")
    assert account.token().value == "", "no header may hold this"


def test_a_login_opens_a_gated_repository(server: BlobServer, tmp_path: Path) -> None:  # noqa: F811 - the fixture
    from tests.fake_hub import FakeHuggingFace

    FakeHuggingFace(server, "demo/m", FILES, token="hf_good", gated=True)
    machine = Machine(server, tmp_path)
    with pytest.raises(FatalError, match="Set HF_TOKEN to a token of that account, or use: hf auth login"):
        machine.get()
    (tmp_path / "hf").mkdir(exist_ok=True)
    (tmp_path / "hf/token").write_text("hf_good")
    assert machine.get().path.is_dir()


def test_a_refused_token_says_where_it_comes_from(server: BlobServer, tmp_path: Path) -> None:  # noqa: F811
    refusal = {"x-error-message": "Invalid credentials in Authorization header"}
    server.routes["/"] = lambda exchange: exchange.reply(401, {"error": "no"}, refusal)
    with pytest.raises(FatalError, match=r"Invalid credentials.*comes from the variable HF_TOKEN") as refused:
        Machine(server, tmp_path).get(HF_TOKEN="hf_old")
    assert "hf_old" not in str(refused.value)
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf/token").write_text("hf_older")
    with pytest.raises(FatalError, match=r"comes from the file .*token \(written by: hf auth login\)"):
        Machine(server, tmp_path).get()
