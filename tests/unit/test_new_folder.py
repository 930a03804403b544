"""What `cozyctl init`, `import` and `client generate` write appears whole, or not at all."""

import os
import threading
from pathlib import Path

import pytest

from gen_worker.cli.new_folder import new_folder
from gen_worker.cli.output import write_file


def test_a_folder_appears_whole(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "made"
    with new_folder(target) as being_made:
        (being_made / "src").mkdir()
        (being_made / "src" / "a.py").write_text("x")
        assert not target.exists()
    assert [path.name for path in target.rglob("*")] == ["src", "a.py"]
    assert [path.name for path in target.parent.iterdir()] == ["made"]


def test_an_interrupted_one_leaves_nothing(tmp_path: Path) -> None:
    def interrupted(target: Path) -> None:
        with new_folder(target) as being_made:
            (being_made / "a.py").write_text("x")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted(tmp_path / "made")
    assert list(tmp_path.iterdir()) == []
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(KeyboardInterrupt):
        interrupted(empty)
    assert list(tmp_path.rglob("*")) == [empty]


def test_an_empty_folder_stays_the_same_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`cozyctl init .`: the shell stands in it."""
    monkeypatch.chdir(tmp_path)
    before = tmp_path.stat().st_ino
    with new_folder(Path()) as being_made:
        (being_made / ".gitignore").write_text("x")
        (being_made / "src").mkdir()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".gitignore", "src"]
    assert tmp_path.stat().st_ino == before


def test_a_file_is_replaced_whole_a_link_is_followed_and_a_pipe_written(tmp_path: Path) -> None:
    real, link, pipe = tmp_path / "real.py", tmp_path / "link.py", tmp_path / "pipe"
    real.write_text("old")
    link.symlink_to(real)
    write_file(link, b"new")
    assert (link.is_symlink(), real.read_bytes()) == (True, b"new")
    os.mkfifo(pipe)
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()))
    reader.start()
    write_file(pipe, b"through")
    reader.join()
    assert got == [b"through"]
    with pytest.raises(OSError, match="nowhere"):
        write_file(tmp_path / "nowhere" / "x", b"")
