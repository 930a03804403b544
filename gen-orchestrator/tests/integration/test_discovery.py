"""What the code of a published project gets to see, and to leave behind, while its functions are read."""

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest
from hello_project import HELLO, write_hello
from waiting import until

from gen_orchestrator.hub.discovery import discover
from gen_orchestrator.hub.folders import FolderError

# What it finds is told by the error that its import ends with.
SPY = """
import json, os, subprocess, sys
def tried(path):
    try:
        return open(path).read()[:20]
    except OSError as exc:
        return type(exc).__name__
FOUND = {
    "env": dict(os.environ),
    "key": tried(KEY),
    "parent": tried(f"/proc/{PLATFORM}/environ"),
    "uid": os.getuid(),
    "stdin": sys.stdin.read(),
}
"""


def project(folder: Path, before: str) -> Path:
    """A project that does something while it is imported, and tells of `FOUND` by failing."""
    return write_hello(folder, "spy", f"{before}\n{HELLO}")


def found_by(folder: Path, code: str) -> dict[str, object]:
    source = project(folder, f"{code}\nraise RuntimeError('FOUND' + json.dumps(FOUND) + 'END')")
    with pytest.raises(FolderError) as caught:
        asyncio.run(discover(sys.executable, source, is_sent=True))
    text = str(caught.value)
    said: dict[str, object] = json.loads(text[text.index("FOUND") + 5 : text.index("END")])
    return said


def test_a_hostile_project_sees_no_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = {
        "COZY_API_KEY": "cz_secret",
        "HF_TOKEN": "hf_secret",
        "AWS_SECRET_ACCESS_KEY": "aws_secret",
        "PIP_INDEX_URL": "https://user:pip_secret@index.example",
        "http_proxy": "http://user:proxy_secret@proxy.example",
    }
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    key = data / "operator.key"
    key.write_text("operator_secret")
    key.chmod(0o600)
    found = found_by(tmp_path / "spy", f"KEY = {str(key)!r}\nPLATFORM = {os.getpid()}\n{SPY}")
    assert "secret" not in json.dumps(found["env"])
    assert found["stdin"] == ""
    if os.geteuid() == 0 and found["uid"] != 0:
        assert (found["key"], found["parent"]) == ("PermissionError", "PermissionError")
        assert "secret" not in json.dumps(found)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_sent_code_runs_as_a_user_of_its_own_each_time(tmp_path: Path) -> None:
    if not _is_reachable(Path(sys.executable)):
        pytest.skip("the interpreter lies where other users cannot read it")
    code = "import json, os\nFOUND = {'uid': os.getuid(), 'groups': os.getgroups(), 'home': os.listdir(os.environ['HOME'])}"
    first, second = found_by(tmp_path / "a", code), found_by(tmp_path / "b", code)
    assert first["uid"] != second["uid"]
    assert 0 not in (first["uid"], second["uid"])
    assert (first["groups"], first["home"]) == ([], [])


def test_the_manifest_is_the_same_as_at_home(tmp_path: Path) -> None:
    source = write_hello(tmp_path / "hello", "hello")
    assert asyncio.run(discover(sys.executable, source, is_sent=True)) == asyncio.run(discover(sys.executable, source))


def test_an_import_that_hangs_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    child = (
        "import subprocess, sys, time\nsubprocess.Popen([sys.executable, '-c', 'import time; time.sleep(1000)', MARK])\ntime.sleep(1000)"
    )
    mark = f"mark-{os.getpid()}-{tmp_path.name}"
    source = project(tmp_path / "stuck", f"MARK = {mark!r}\n{child}")
    with pytest.raises(FolderError, match="longer than 3 s"):
        asyncio.run(discover(sys.executable, source, is_sent=True, timeout_s=3))
    until(lambda: not _runs(mark))


def _is_reachable(path: Path) -> bool:
    return all(parent.stat().st_mode & 0o001 for each in (path, path.resolve()) for parent in each.parents)


def _runs(mark: str) -> bool:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if mark.encode() in path.read_bytes():
                return True
        except OSError:
            continue
    return False
