"""Files in folders where other users may write: what they put there has no effect."""

import os
from pathlib import Path

import pytest

from gen_worker.shared_files import open_own, read_whole, remove_tree, write_whole


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    folder = tmp_path / "victim"
    folder.mkdir()
    (folder / "keep").write_text("mine")
    return folder


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    (tmp_path / "shared").mkdir()
    return tmp_path / "shared"


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/", "../victim", "a/..", "/tmp", "a\0b", "./x"])
def test_only_an_entry_of_the_folder_is_removed(shared: Path, victim: Path, name: str) -> None:
    (shared / "a").mkdir()
    with pytest.raises(ValueError, match="not the name of an entry"):
        remove_tree(shared, name)
    assert (shared / "a").is_dir()
    assert (victim / "keep").read_text() == "mine"


def test_links_are_removed_and_what_they_lead_to_stays(shared: Path, victim: Path) -> None:
    (shared / "run/inputs/deep").mkdir(parents=True)
    (shared / "run/file").write_text("x")
    (shared / "run/out").symlink_to(victim)
    (shared / "run/inputs/deep/out").symlink_to(victim, target_is_directory=True)
    (shared / "run/inputs/nowhere").symlink_to("/does/not/exist")
    os.link(victim / "keep", shared / "run/inputs/second-name")
    os.mkfifo(shared / "run/inputs/pipe")
    remove_tree(shared, "run")
    assert list(shared.iterdir()) == []
    assert (victim / "keep").read_text() == "mine"
    (shared / "run").symlink_to(victim)
    remove_tree(shared, "run")
    assert list(shared.iterdir()) == []
    assert (victim / "keep").read_text() == "mine"
    remove_tree(shared, "run")
    remove_tree(shared / "none", "run")


def test_a_very_deep_tree_is_removed(shared: Path) -> None:
    here = os.open(shared, os.O_RDONLY)
    for _ in range(3000):  # longer than a path may be, deeper than Python's stack and than files may be open
        os.mkdir("d", dir_fd=here)
        inner = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(here)
    remove_tree(shared, "d")
    assert list(shared.iterdir()) == []


def test_a_file_is_read_only_if_it_is_one(shared: Path, victim: Path) -> None:
    (shared / "link").symlink_to(victim / "keep")
    os.mkfifo(shared / "pipe")
    (shared / "plain").write_bytes(b"12345")
    assert read_whole(shared / "plain") == b"12345"
    for name in ("link", "pipe", "none", "."):
        with pytest.raises(OSError):  # noqa: PT011 - which of them depends on what is there
            read_whole(shared / name)
    with pytest.raises(OSError, match="5 bytes; at most 4"):
        read_whole(shared / "plain", 4)


@pytest.mark.parametrize("kind", ["symbolic", "hard", "dangling", "pipe"])
def test_writing_changes_nothing_but_our_own_file(shared: Path, victim: Path, kind: str) -> None:
    def plant() -> None:
        (shared / "x").unlink(missing_ok=True)
        match kind:
            case "symbolic":
                (shared / "x").symlink_to(victim / "keep")
            case "hard":
                os.link(victim / "keep", shared / "x")
            case "dangling":
                (shared / "x").symlink_to(victim / "made")
            case _:
                os.mkfifo(shared / "x")

    plant()
    write_whole(shared / "x", b"ours")
    assert read_whole(shared / "x") == b"ours"
    plant()
    fd = open_own(shared / "x", os.O_RDWR)
    os.write(fd, b"ours")
    os.close(fd)
    assert read_whole(shared / "x") == b"ours"
    fd = open_own(shared / "x", os.O_RDWR)
    assert os.read(fd, 9) == b"ours", "a file of ours is opened, not replaced"
    os.close(fd)
    assert [path.name for path in victim.iterdir()] == ["keep"]
    assert (victim / "keep").read_text() == "mine"
    assert [path.name for path in shared.iterdir()] == ["x"]
