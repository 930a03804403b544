"""Models pushed by a client on the platform's machine: put into its inbox instead of sent; the platform itself checks the files."""

import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from blake3 import blake3
from model_project import safetensors, verb, write_model
from platform_process import COZYCTL, PlatformProcess, write_project
from waiting import until

from gen_orchestrator.cli.model_inbox import inbox_of
from gen_orchestrator.hub.inbox import Inbox
from gen_orchestrator.hub.model_records import ModelFile
from gen_orchestrator.hub.models import ModelStore
from gen_worker.content.progress import Progress
from gen_worker.errors import CozyHubError
from gen_worker.refs import ModelSpec
from gen_worker.settings import ModelSettings
from gen_worker.sources.build import build_sources
from gen_worker.sources.source import ModelWant


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlatformProcess]:
    folder = tmp_path_factory.mktemp("near")
    started = PlatformProcess(write_project(folder / "probe"), folder / "data")
    yield started
    started.close()


def blob(platform: PlatformProcess, content: bytes) -> Path:
    name = blake3(content).hexdigest()
    return platform.data / "models" / "blobs" / "blake3" / name[:2] / name[2:4] / name


def inbox(platform: PlatformProcess) -> Path:
    """The inbox, which a first push makes."""
    answer = platform.http.put("/v1/models/me/asked/tags/x", json={"files": [{"path": "a.txt", "size_bytes": 3, "blake3": "0" * 64}]})
    assert answer.status_code == 202, answer.text
    return Path(answer.json()["inbox"]["folder"])


def worker_fetches(platform: PlatformProcess, ref: str, cache: Path) -> None:
    """What a worker does to get a model from this platform."""
    settings = ModelSettings.from_env(
        {"COZY_HUB_URL": platform.url, "TENSORHUB_CACHE_DIR": str(cache), "WORKER_MIN_FREE_DISK_GB": "0.01", "HF_HOME": str(cache / "hf")}
    )
    sources = build_sources(settings, {})
    sources.source.fetch(ModelWant("m", ModelSpec(ref)), Progress("m"), threading.Event())


def laid(platform: PlatformProcess) -> list[str]:
    return [path.name for path in inbox(platform).iterdir() if path.name != "nonce"]


def test_nothing_is_sent_and_later_edits_change_nothing(platform: PlatformProcess, tmp_path: Path) -> None:
    weights = safetensors(size=100)
    folder = write_model(tmp_path / "one", weights, '{"one": 1}')
    assert verb(platform, "push", str(folder), "me/one").returncode == 0
    kept = blob(platform, weights)
    assert (kept.read_bytes(), kept.stat().st_nlink, kept.stat().st_mode & 0o777) == (weights, 1, 0o444)
    with (folder / "weights.safetensors").open("r+b") as file:
        file.write(b"edited in place")
    assert kept.read_bytes() == weights
    assert laid(platform) == []


def test_a_model_comes_from_another_file_system(platform: PlatformProcess) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as elsewhere:
        weights = safetensors(size=90)
        for flags in ((), ("--link",)):
            done = verb(platform, "push", str(write_model(Path(elsewhere) / "m", weights)), "me/elsewhere", *flags)
            assert done.returncode == 0, done.stderr
            assert ("1 file copied, not linked: the platform's data folder is on another disk" in done.stderr) == bool(flags), done
            assert blob(platform, weights).stat().st_nlink == 1
            blob(platform, weights).unlink()


def test_what_lies_is_refused(platform: PlatformProcess, tmp_path: Path) -> None:
    folder = inbox(platform)
    (tmp_path / "mine").write_bytes(b"abc")

    def put(name: str, content: str = "abc", **query: str) -> int:
        path = f"/v1/blobs/blake3:{blake3(content.encode()).hexdigest()}"
        return platform.http.put(path, params={"inbox": name, **query}).status_code

    names = {kind: secrets.token_hex(16) for kind in ("other", "symlink", "link", "pipe", "folder")}
    (folder / names["other"]).write_bytes(b"abd")
    (folder / names["symlink"]).symlink_to(tmp_path / "mine")
    (folder / names["link"]).hardlink_to(tmp_path / "mine")
    os.mkfifo(folder / names["pipe"])
    (folder / names["folder"]).mkdir()
    assert {kind: put(name) for kind, name in names.items()} == dict.fromkeys(names, 400)
    for name in ("nonce", "../nonce", str(tmp_path / "mine"), "a" * 31, "A" * 32, "0" * 32, "%00" * 32):
        assert put(name) == 400, name
    for kind in ("symlink", "pipe", "folder"):
        assert put(names[kind], linked="true") == 400, kind
    assert not (folder / names["other"]).exists(), "one with other content is taken, looked at and removed"
    assert not blob(platform, b"abc").exists()
    assert list(blob(platform, b"abc").parent.glob(".new-*")) == []
    whole = secrets.token_hex(16)
    (folder / whole).write_bytes(b"abc")
    assert platform.http.put(f"/v1/blobs/blake3:{blake3(b'abc').hexdigest()}?inbox={whole}", content=b"also").status_code == 413
    assert put(whole) == 204
    assert put(whole) == 400, "it is taken once"
    for kind in ("symlink", "link", "pipe"):
        (folder / names[kind]).unlink()
    (folder / names["folder"]).rmdir()


def test_an_inbox_that_is_not_ours_is_not_used(tmp_path: Path) -> None:
    offer = Inbox(tmp_path / "inbox").offer()
    good = {"folder": offer.folder, "nonce": offer.nonce}
    assert inbox_of(good) == tmp_path / "inbox"
    assert Inbox(tmp_path / "inbox").offer() == offer, "of nodes that share a folder, each says the same"
    (tmp_path / "link").symlink_to(tmp_path / "inbox")
    for bad in (None, [], {}, {"folder": offer.folder}, {**good, "nonce": ""}, {**good, "nonce": offer.nonce[:-1]}, {**good, "nonce": 7},
                {**good, "folder": str(tmp_path / "none")}, {**good, "folder": str(tmp_path / "link")}, {**good, "folder": "\0"},
                {**good, "folder": 7}):  # fmt: skip
        assert inbox_of(bad) is None, bad
    (tmp_path / "inbox").chmod(0o750)
    assert inbox_of(good) is None, "others might look into it"
    (tmp_path / "inbox").chmod(0o700)
    if os.geteuid() == 0:
        os.chown(tmp_path / "inbox", 65534, 65534)
        assert inbox_of(good) is None, "of another user"


def test_a_client_that_is_killed_leaves_nothing_that_stays(platform: PlatformProcess, tmp_path: Path) -> None:
    weights = safetensors(size=80)
    folder = write_model(tmp_path / "killed", weights)
    with (folder / "large.bin").open("wb") as file:
        file.truncate(200 << 20)
    env = {**os.environ, "COZY_URL": platform.url}
    command = [str(COZYCTL), "models", "push", str(folder), "me/killed", "--allow-unsafe"]
    with subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL) as pushing:
        until(lambda: laid(platform) or blob(platform, weights).exists() or pushing.poll() is not None, 60)
        pushing.send_signal(signal.SIGKILL)
    (folder / "large.bin").unlink()
    assert platform.http.get("/v1/models/me/killed").status_code == 404
    assert verb(platform, "push", str(folder), "me/killed").returncode == 0
    ModelStore(platform.data / "models").collect(young_s=-1)
    assert laid(platform) == []
    assert blob(platform, weights).read_bytes() == weights


def test_a_file_that_grows_while_it_is_read_is_not_pushed(platform: PlatformProcess, tmp_path: Path) -> None:
    folder = write_model(tmp_path / "grows", safetensors(size=70))
    stop = threading.Event()

    def append() -> None:
        with (folder / "notes.txt").open("ab", buffering=0) as file:
            while not stop.is_set():
                file.write(b"x" * 4096)
                file.truncate(4096)  # also shorter than it was: mapped, that would end whoever reads

    writer = threading.Thread(target=append)
    writer.start()
    try:
        done = verb(platform, "push", str(folder), "me/grows")
    finally:
        stop.set()
        writer.join()
    shown = platform.http.get("/v1/models/me/grows")
    if done.returncode == 0:  # it fell between two writes: then what is kept is what was listed
        files = {each["path"]: each for each in shown.json()["versions"][0]["files"]}
        assert files["notes.txt"]["size_bytes"] in (4096, 8192)
    else:
        assert (done.returncode, shown.status_code) in ((1, 404), (2, 404)), done
        assert "changed" in done.stderr, done.stderr


def test_a_link_whose_author_writes_to_it_is_served_no_more(tmp_path: Path) -> None:
    store = ModelStore(tmp_path / "models")
    source = tmp_path / "weights.safetensors"
    source.write_bytes(safetensors(size=60))
    file = ModelFile("weights.safetensors", source.stat().st_size, blake3(source.read_bytes()).hexdigest())
    name = secrets.token_hex(16)
    store.inbox.offer()
    (tmp_path / "models" / "inbox" / name).hardlink_to(source)
    assert store.take_laid(file.blake3, name, linked=True)
    assert (store.blob_path(file.blake3).samefile(source), source.stat().st_mode & 0o222) == (True, 0), "one file, which is read-only now"
    assert store.missing([file]) == []
    (tmp_path / "worker").hardlink_to(store.blob_path(file.blake3))
    assert store.missing([file]) == [], "a worker's link changes nothing"
    source.chmod(0o644)
    before = source.stat()
    with source.open("r+b") as target:
        target.seek(-1, os.SEEK_END)
        target.write(b"\xff")
    os.utime(source, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert store.is_changed(file.blake3)
    assert store.missing([file]) == [file.blake3], "it is asked for again"


def test_a_push_by_link_writes_no_bytes(platform: PlatformProcess, tmp_path: Path) -> None:
    weights = safetensors(size=50)
    folder = write_model(tmp_path / "linked", weights)
    done = verb(platform, "push", str(folder), "me/linked", "--link")
    assert done.returncode == 0, done.stderr
    kept = blob(platform, weights)
    source = folder / "weights.safetensors"
    said = "linked, without a copy: the platform serves the very files" if kept.samefile(source) else "since this disk shares bytes"
    assert said in done.stderr, done
    again = verb(platform, "push", str(folder), "me/linked", "--link")
    assert "nothing to link: the platform has all files already" in again.stderr
    as_json = json.loads(verb(platform, "push", str(folder), "me/linked", "--link", "--json").stdout)
    assert as_json["handed"] == {"linked": 0, "shared": 0, "copied": 0, "sent": 0}
    assert kept.samefile(source) or kept.stat().st_nlink == 1, "where the disk shares bytes, there is no need for a link"
    if not kept.samefile(source):
        return
    body = {"model_ref": "cozy:me/linked", "constraints": {"dtypes": []}, "include_urls": True}
    files = platform.http.post("/api/v1/public/models/request", json=body).json()["snapshot_manifest"]["files"]
    url = next(each["url"] for each in files if each["path"] == "weights.safetensors")
    assert platform.http.get(url).content == weights
    source.chmod(0o644)
    source.write_bytes(b"x" * len(weights))
    gone = platform.http.get(url)
    assert (gone.status_code, gone.json()["error"]) == (410, "changed_link")
    fix = "weights.safetensors was pushed with --link and has changed since. Push the model again: cozyctl models push FOLDER me/linked:latest"
    answer = platform.http.post("/api/v1/public/models/request", json=body)
    assert (answer.status_code, answer.json()["detail"]) == (410, fix)
    with pytest.raises(CozyHubError, match=re.escape(fix)) as refused:  # a worker is told at once, for good
        worker_fetches(platform, "cozy:me/linked", tmp_path / "cache")
    assert not refused.value.retryable
    shown = verb(platform, "show", "me/linked")
    assert "weights.safetensors was pushed with --link and has changed since, so workers cannot get this version" in shown.stderr, shown
    shutil.copyfile(write_model(tmp_path / "right", weights) / "weights.safetensors", folder / "new")
    (folder / "new").replace(source)
    assert verb(platform, "push", str(folder), "me/linked").returncode == 0
    assert platform.http.get(url).content == weights
