"""What the code of a published project can see, and what it can leave behind, while its functions are read."""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from hello_project import HELLO, write_hello
from waiting import until

import gen_worker.names
from gen_orchestrator.child_environment import ChildEnvironment
from gen_orchestrator.hub.closed_folder import let_others_through
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


def found_by(folder: Path, code: str, python: str = sys.executable, say: Callable[[str], None] = lambda text: None) -> dict[str, object]:
    source = project(folder, f"{code}\nraise RuntimeError('FOUND' + json.dumps(FOUND) + 'END')")
    with pytest.raises(FolderError) as caught:
        asyncio.run(discover(python, source, ChildEnvironment(os.environ), is_sent=True, say=say))
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


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_an_environment_below_a_closed_folder_is_reached_and_nothing_else_of_it(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory() as made:  # pytest's own folders are closed to others
        place = Path(made)
        place.chmod(0o755)
        data = place / "data"
        data.mkdir(mode=0o700)
        (data / "models").mkdir(mode=0o755)
        secrets = ("operator.key", "store.sqlite", "models/weights", "late")
        for name in secrets[:3]:
            (data / name).write_text("ours")
        (data / "operator.key").chmod(0o600)
        (data / "environments").mkdir(mode=0o700)
        python = _environment_for_all(data / "environments" / "made")
        if python is None:
            pytest.skip("no interpreter here that other users can read")
        let_others_through(data, "environments")
        (data / "uploads" / "late").write_text("ours")  # what comes later lies in folders that were closed beforehand
        tries = "".join(f"{str(data / name)!r}: tried({str(data / name)!r}), " for name in (*secrets[:3], "uploads/late"))
        lists = f"'data': listed({str(data)!r}), 'environments': listed({str(data / 'environments')!r})"
        helper = (
            "def listed(path):\n    try:\n        return os.listdir(path)\n    except OSError as exc:\n        return type(exc).__name__\n"
        )
        code = f"KEY = ''\nPLATFORM = 1\n{SPY}\n{helper}FOUND = {{'uid': os.getuid(), {tries}{lists}}}"
        said: list[str] = []
        found = found_by(tmp_path / "spy", code, str(python), said.append)
        assert found.pop("uid") != 0, said
        assert set(found.values()) == {"PermissionError"}, found
        assert said == ["reading its functions as a separate user"]
        hello = write_hello(tmp_path / "hello", "hello")
        assert asyncio.run(discover(str(python), hello, ChildEnvironment(os.environ), is_sent=True)) == asyncio.run(
            discover(sys.executable, hello, ChildEnvironment(os.environ))
        )


def _environment_for_all(folder: Path) -> Path | None:
    """An environment with the packages of this one, made of an interpreter that every user can read; None where there is none."""
    packages = [Path(msgspec.__file__).parent.parent, Path(gen_worker.names.__file__).parents[1]]
    version = "import sys; print(sys.version_info[:2])"
    for base in (Path(sys.executable).resolve(), Path("/usr/bin/python3"), Path("/usr/local/bin/python3")):
        if not base.exists() or not all(_is_reachable(path) for path in (base, *packages)):
            continue
        if subprocess.run([str(base), "-c", version], capture_output=True, text=True, check=False).stdout.strip() != str(
            sys.version_info[:2]
        ):
            continue
        if subprocess.run([str(base), "-m", "venv", "--without-pip", str(folder)], capture_output=True, check=False).returncode:
            continue
        (site,) = folder.glob("lib/python3*/site-packages")
        (site / "these.pth").write_text("".join(f"{path}\n" for path in packages))
        return folder / "bin" / "python"
    return None


def test_the_manifest_is_the_same_as_at_home(tmp_path: Path) -> None:
    source = write_hello(tmp_path / "hello", "hello")
    assert asyncio.run(discover(sys.executable, source, ChildEnvironment(os.environ), is_sent=True)) == asyncio.run(
        discover(sys.executable, source, ChildEnvironment(os.environ))
    )


def test_an_import_that_hangs_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    child = (
        "import subprocess, sys, time\nsubprocess.Popen([sys.executable, '-c', 'import time; time.sleep(1000)', MARK])\ntime.sleep(1000)"
    )
    mark = f"mark-{os.getpid()}-{tmp_path.name}"
    source = project(tmp_path / "stuck", f"MARK = {mark!r}\n{child}")
    with pytest.raises(FolderError, match="longer than 3 s"):
        asyncio.run(discover(sys.executable, source, ChildEnvironment(os.environ), is_sent=True, timeout_s=3))
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
