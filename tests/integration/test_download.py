"""Downloads from a server that breaks off, stalls, sends wrong bytes, and lets URLs expire."""

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest
from blake3 import blake3
from tests.blob_server import BlobServer
from tests.waiting import until

from gen_worker.content.disk import growth_bytes, has_size
from gen_worker.net.disk_calls import reserve
from gen_worker.net.download import fetch
from gen_worker.net.range_client import Link, RangeClient
from gen_worker.net.retry import Retries, RetryPolicy
from gen_worker.net.wanted import DownloadCanceledError, DownloadFailedError, Policy, Wanted

QUICK = RetryPolicy(first_pause_s=0.01, max_pause_s=0.05)
SIZE = (24 << 20) + 12345


class Count:
    total = 0

    def add(self, size_bytes: int) -> None:
        self.total += size_bytes


@pytest.fixture
def server() -> Iterator[BlobServer]:
    with BlobServer() as server:
        yield server


@pytest.fixture(scope="module")
def data() -> bytes:
    return random.Random(7).randbytes(SIZE)


def wanted(path: Path, url: str, data: bytes, algorithm: str = "blake3") -> Wanted:
    hexadecimal = blake3(data).hexdigest() if algorithm == "blake3" else hashlib.sha256(data).hexdigest()
    return Wanted(path, len(data), f"{algorithm}:{hexadecimal}", lambda expired: Link(url))


def get(
    *files: Wanted,
    policy: Policy = Policy(),  # noqa: B008 - frozen
    retries: Retries | None = None,
    tries: int = QUICK.tries,
    cancel: threading.Event | None = None,
    read_timeout_s: float = 30.0,
) -> int:
    retries = retries or Retries(msgspec.structs.replace(QUICK, tries=tries))
    meter, client = Count(), RangeClient(read_timeout_s=read_timeout_s, retries=retries)
    try:
        fetch(files, client, meter, cancel or threading.Event(), policy=policy)
    finally:
        client.close()
    return meter.total


def cancel_after(size_bytes: int, server: BlobServer, file: Wanted) -> None:
    """Cancel a download once so many bytes were sent; it must end at once."""
    cancel = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        download = pool.submit(get, file, cancel=cancel)
        until(lambda: server.sent_bytes >= size_bytes)
        cancel.set()
        with pytest.raises(DownloadCanceledError):
            download.result(timeout=30)


def left_over(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if ".part" in p.name)


@pytest.mark.parametrize("algorithm", ["blake3", "sha256"])
def test_ranges_make_the_file(server: BlobServer, tmp_path: Path, data: bytes, algorithm: str) -> None:
    url = server.add("/a", data, pause_s=0.02)
    assert get(wanted(tmp_path / "a", url, data, algorithm)) == SIZE
    assert (tmp_path / "a").read_bytes() == data
    assert server.sent_bytes == SIZE
    assert len(server.requests) > 4
    assert left_over(tmp_path) == []


def test_a_server_next_door_is_not_asked_by_many_at_once(server: BlobServer, tmp_path: Path, data: bytes) -> None:
    get(wanted(tmp_path / "a", server.add("/a", data), data))
    assert (tmp_path / "a").read_bytes() == data
    assert server.sent_bytes == SIZE
    assert len(server.requests) > 1


def test_many_files_some_empty(server: BlobServer, tmp_path: Path) -> None:
    content = {f"f{n}": random.Random(n).randbytes(n * 37 % 5000) for n in range(300)} | {"empty": b""}
    files = [wanted(tmp_path / name, server.add(f"/{name}", blob), blob) for name, blob in content.items()]
    get(*files)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == content


def test_cut_connections_are_taken_up_where_they_broke(server: BlobServer, tmp_path: Path, data: bytes) -> None:
    url = server.add("/a", data, cut_after=1_500_000)
    get(wanted(tmp_path / "a", url, data))
    assert (tmp_path / "a").read_bytes() == data
    assert server.sent_bytes == SIZE


def test_a_server_without_ranges(server: BlobServer, tmp_path: Path, data: bytes) -> None:
    url = server.add("/a", data, ranges=False)
    get(wanted(tmp_path / "a", url, data))
    assert (tmp_path / "a").read_bytes() == data


def test_without_ranges_a_cut_begins_again(server: BlobServer, tmp_path: Path, data: bytes) -> None:
    url = server.add("/a", data, ranges=False, cut_after=9_000_000, cuts=2)
    assert get(wanted(tmp_path / "a", url, data), policy=Policy(streams=1, max_streams=1)) == SIZE
    assert (tmp_path / "a").read_bytes() == data


def test_who_always_lies_about_ranges_is_asked_for_the_whole_file(server: BlobServer, tmp_path: Path, data: bytes) -> None:
    url = server.add("/a", data, lie_range=True)
    assert get(wanted(tmp_path / "a", url, data), policy=Policy(streams=1, max_streams=1)) == SIZE
    assert (tmp_path / "a").read_bytes() == data
    assert len([one for one in server.requests if one[2]]) == 2, "two tries with a range, then one without"
    # The digest still decides.
    url = server.add("/b", data[:-1] + b"?", lie_range=True)
    with pytest.raises(DownloadFailedError, match="does not match its digest"):
        get(wanted(tmp_path / "b", url, data))
    assert not (tmp_path / "b").exists()


def test_machines_that_each_have_a_tag_of_their_own(server: BlobServer, tmp_path: Path, data: bytes) -> None:
    """As behind a load balancer whose web servers make tags of inode numbers."""
    url = server.add("/a", data, cut_after=1 << 20, tag_per_answer=True)
    assert get(wanted(tmp_path / "b", server.add("/b", data, tag_per_answer=True), data), policy=Policy(streams=8)) == SIZE
    # If the connection breaks, too, every try begins at nothing, and there is an end to them.
    with pytest.raises(DownloadFailedError, match="restarted 16 times") as failed:
        get(wanted(tmp_path / "a", url, data))
    assert failed.value.passing


@pytest.mark.parametrize("etag", ['"a"\r\nx-evil: 1', "\u00e9", "x" * 5000, "a b"])
def test_a_journal_with_an_etag_that_is_none(server: BlobServer, tmp_path: Path, data: bytes, etag: str) -> None:
    url = server.add("/a", data)
    file = wanted(tmp_path / "a", url, data)
    (tmp_path / "a.part").write_bytes(data[: 1 << 20])
    journal = {"size_bytes": SIZE, "digest": file.digest, "etag": etag, "done": [[0, 1 << 20]]}
    (tmp_path / "a.part.json").write_text(json.dumps(journal))
    get(file)
    assert (tmp_path / "a").read_bytes() == data
    assert all("x-evil" not in headers for headers in server.headers)


@pytest.mark.parametrize(
    "journal", [b"\xff\xfe", b"[" * 100_000, b"[1]", b'{"size_bytes": "a"}', b'{"size_bytes": 1, "digest": "\xff", "etag": "", "done": []}']
)
def test_a_journal_that_cannot_be_read(server: BlobServer, tmp_path: Path, data: bytes, journal: bytes) -> None:
    url = server.add("/a", data)
    (tmp_path / "a.part").write_bytes(bytes(SIZE))
    (tmp_path / "a.part.json").write_bytes(journal)
    get(wanted(tmp_path / "a", url, data))
    assert (tmp_path / "a").read_bytes() == data


def test_passing_errors_are_tried_again_and_others_are_not(server: BlobServer, tmp_path: Path, data: bytes) -> None:
    get(wanted(tmp_path / "a", server.add("/a", data, fail=[503, 500, 429]), data))
    with pytest.raises(DownloadFailedError, match="404") as failed:
        get(wanted(tmp_path / "b", f"{server.url}/missing", data))
    assert (failed.value.status, failed.value.passing) == (404, False)
    assert "token" not in str(failed.value)


def test_a_slow_loris_is_hung_up_on(server: BlobServer, tmp_path: Path) -> None:
    blob = random.Random(1).randbytes(1 << 20)
    url = server.add("/a", blob, chunk_pause_s=0.4)
    policy = Policy(streams=1, max_streams=1, stall_s=0.3, stall_bytes=1 << 20)
    began_s = time.monotonic()
    get(wanted(tmp_path / "a", url, blob), policy=policy)  # each try brings something, so all of them together bring everything
    assert server.blobs["/a"].data == (tmp_path / "a").read_bytes()
    assert len(server.requests) > 2
    assert time.monotonic() - began_s < 60


def test_a_silent_server_is_hung_up_on(server: BlobServer, tmp_path: Path) -> None:
    url = server.add("/a", b"x" * 5000, pause_s=3)
    with pytest.raises(DownloadFailedError) as failed:
        get(wanted(tmp_path / "a", url, b"x" * 5000), tries=2, read_timeout_s=0.2)
    assert failed.value.passing


def test_expired_addresses_are_renewed_and_what_came_is_kept(server: BlobServer, tmp_path: Path, data: bytes) -> None:
    server.add("/a", data, expires=True, cut_after=2 << 20)
    asked: list[bool] = []

    def link(expired: bool) -> Link:
        asked.append(expired)
        if expired:
            server.token = str(int(server.token) + 1)
        return Link(f"{server.url}/a?token={server.token}")

    def expire() -> None:
        until(lambda: server.sent_bytes >= SIZE // 2)
        server.token = "99"

    thread = threading.Thread(target=expire)
    thread.start()
    get(Wanted(tmp_path / "a", SIZE, f"blake3:{blake3(data).hexdigest()}", link))
    thread.join()
    assert (tmp_path / "a").read_bytes() == data
    assert True in asked
    assert server.sent_bytes == SIZE


def test_refused_for_good(server: BlobServer, tmp_path: Path, data: bytes) -> None:
    server.add("/a", data, expires=True)
    with pytest.raises(DownloadFailedError, match="403") as failed:
        get(Wanted(tmp_path / "a", SIZE, "", lambda expired: Link(f"{server.url}/a?token=secret-token")))
    assert failed.value.status == 403
    assert "secret-token" not in str(failed.value)


def test_wrong_content_never_becomes_final(server: BlobServer, tmp_path: Path, data: bytes) -> None:
    url = server.add("/a", data[::-1])
    with pytest.raises(DownloadFailedError, match="does not match its digest") as failed:
        get(wanted(tmp_path / "a", url, data))
    assert not failed.value.passing
    assert list(tmp_path.iterdir()) == []


def test_content_that_was_wrong_once_is_fetched_again(server: BlobServer, tmp_path: Path) -> None:
    blob = b"right" * 1000
    url = server.add("/a", blob, lied_data=b"wrong" * 1000, lies=1)
    get(wanted(tmp_path / "a", url, blob))
    assert (tmp_path / "a").read_bytes() == blob


def test_another_size_than_expected(server: BlobServer, tmp_path: Path, data: bytes) -> None:
    url = server.add("/a", data[:-10])
    with pytest.raises(DownloadFailedError, match=f"{SIZE - 10} bytes at its source, expected {SIZE}"):
        get(wanted(tmp_path / "a", url, data))


def test_a_changed_version_begins_again(server: BlobServer, tmp_path: Path, data: bytes) -> None:
    """The second half comes from another version: the first one no longer counts."""
    url = server.add("/a", bytes(SIZE), chunk_pause_s=0.01)
    cancel_after(4 << 20, server, Wanted(tmp_path / "a", SIZE, "", lambda expired: Link(url)))
    assert left_over(tmp_path) == ["a.part", "a.part.json"]
    server.add("/a", data, etag='"v2"')
    get(Wanted(tmp_path / "a", SIZE, "", lambda expired: Link(url)))
    assert (tmp_path / "a").read_bytes() == data


def test_a_part_of_a_program_without_journals_is_taken_over(server: BlobServer, tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.part").write_bytes(data[: 10 << 20])
    get(wanted(tmp_path / "a", server.add("/a", data), data))
    assert (tmp_path / "a").read_bytes() == data
    assert server.sent_bytes == SIZE - (10 << 20)


def test_redirects_keep_headers_at_home(server: BlobServer, tmp_path: Path, data: bytes) -> None:
    with BlobServer() as other:
        target = other.add("/a", data)
        server.routes["/go"] = lambda exchange: exchange.reply(302, None, {"location": target})
        link = Link(f"{server.url}/go", {"authorization": "Bearer secret"})
        get(Wanted(tmp_path / "a", SIZE, "", lambda expired: link))
        assert server.headers[0]["authorization"] == "Bearer secret"
        assert all("authorization" not in headers for headers in other.headers)
        assert len(server.requests) <= 9  # later ranges go straight to where the first ones were led


SETUP = """
    import json, os, subprocess, sys, threading
    from pathlib import Path
    from gen_worker.net.download import fetch
    from gen_worker.net.wanted import NoSpaceError, Wanted
    from gen_worker.net.range_client import Link, RangeClient
    class Meter:
        def add(self, size_bytes): pass
    url, path, size, digest = sys.argv[1:]
    def get():
        fetch([Wanted(Path(path), int(size), digest, lambda expired: Link(url))], RangeClient(), Meter(), threading.Event())
"""
FETCH = SETUP + "    get()\n"


def test_kill_at_random_points_loses_almost_nothing(server: BlobServer, tmp_path: Path, data: bytes) -> None:
    url = server.add("/a", data, chunk_pause_s=0.004)
    digest = f"blake3:{blake3(data).hexdigest()}"
    command = [sys.executable, "-c", textwrap.dedent(FETCH), url, str(tmp_path / "a"), str(SIZE), digest]
    dice, kills = random.Random(3), 0
    while kills < 4:
        process = subprocess.Popen(command)
        goal = server.sent_bytes + dice.randrange(2 << 20, 6 << 20)
        until(lambda goal=goal, process=process: server.sent_bytes >= goal or process.poll() is not None)
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
        process.wait()
        kills += 1
    subprocess.run(command, check=True)
    assert (tmp_path / "a").read_bytes() == data
    assert left_over(tmp_path) == []
    # A kill loses what is in flight: 8 streams with full socket buffers, and the journal's last quarter of a second.
    assert server.sent_bytes < SIZE + 5 * kills * (4 << 20)


def test_what_the_disk_refuses_is_said_and_nothing_becomes_final(server: BlobServer, tmp_path: Path, data: bytes) -> None:
    url = server.add("/a", data)
    limit = f"""
        import resource, signal
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, ({8 << 20}, {8 << 20}))
    """
    code = textwrap.dedent(limit) + textwrap.dedent(FETCH)
    command = [sys.executable, "-c", code, url, str(tmp_path / "a"), str(SIZE), ""]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "File too large" in done.stderr
    assert not (tmp_path / "a").exists()


def test_room_is_set_aside_before_the_bytes_come_and_is_not_asked_for_twice(server: BlobServer, tmp_path: Path, data: bytes) -> None:
    with (tmp_path / "try").open("wb") as file:
        reserve(file.fileno(), 1 << 20)
        if os.fstat(file.fileno()).st_blocks * 512 < 1 << 20:
            pytest.skip("this file system sets no room aside")
    path = tmp_path / "a"
    assert growth_bytes(path, SIZE) == SIZE
    url = server.add("/a", data, chunk_pause_s=0.004)
    cancel_after(4 << 20, server, wanted(path, url, data))
    assert server.sent_bytes < SIZE
    assert growth_bytes(path, SIZE) == 0, "the disk has given it all"
    assert not has_size(path, SIZE)
    get(wanted(path, url, data))
    assert (has_size(path, SIZE), growth_bytes(path, SIZE)) == (True, 0)


def test_a_cancelled_download_does_not_wait_for_a_server_that_says_nothing(server: BlobServer, tmp_path: Path, data: bytes) -> None:
    url = server.add("/a", data, chunk_pause_s=20.0)
    cancel_after(1, server, wanted(tmp_path / "a", url, data))
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("download-")]


def test_a_cancelled_download_does_not_wait_for_an_answer_that_has_not_begun(server: BlobServer, tmp_path: Path, data: bytes) -> None:
    url = server.add("/a", data, pause_s=60.0)
    cancel = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        download = pool.submit(get, wanted(tmp_path / "a", url, data), cancel=cancel)
        until(lambda: server.requests)
        cancel.set()
        with pytest.raises(DownloadCanceledError):
            download.result(timeout=30)
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("download-")]


FULL = """
    try:
        get()
    except NoSpaceError as exc:
        kept = json.loads(Path(path).with_name("a.part.json").read_bytes())["done"]
        print(exc.strerror, Path(path).exists())
        print(sum(end - start for start, end in kept))
    subprocess.run(["mount", "-o", "remount,size=64m", os.path.dirname(path)], check=True)
    url = url.rpartition("/")[0] + "/again"
    get()
    print(os.listdir(os.path.dirname(path)), os.path.getsize(path))
"""


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="only root can mount a small disk")
def test_a_full_disk_keeps_what_came_and_goes_on_once_there_is_room(server: BlobServer, tmp_path: Path, data: bytes) -> None:
    url, digest = server.add("/a", data), f"blake3:{blake3(data).hexdigest()}"
    server.add("/again", data)
    mount = f'mount -t tmpfs -o size=12m tmpfs {tmp_path} && exec "$@"'
    command = ["unshare", "--mount", "sh", "-c", mount, "sh", sys.executable, "-c", textwrap.dedent(SETUP + FULL)]
    done = subprocess.run([*command, url, str(tmp_path / "a"), str(SIZE), digest], capture_output=True, text=True, check=False)
    if "mount" in done.stderr and not done.stdout:
        pytest.skip(f"no disk can be mounted here: {done.stderr.strip()}")
    said, kept, made = done.stdout.splitlines() or [done.stderr, "0", ""]
    assert (said, made) == (f"no space left for a ({SIZE} bytes) False", f"['a'] {SIZE}"), done.stderr
    assert int(kept) > 4 << 20
    # Not what the server has sent: on a busy machine many megabytes of it lie in the sockets when the disk is full.
    asked = [ranges.removeprefix("bytes=").split("-") for _, path, ranges in server.requests if path == "/again"]
    assert sum(int(last) + 1 - int(first) for first, last in asked) == SIZE - int(kept), "nothing that was here is asked for again"
