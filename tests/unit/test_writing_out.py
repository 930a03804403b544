"""Bytes that are received go to the disk while they arrive."""

import os
from pathlib import Path

import pytest

from gen_worker.net.writing_out import WRITTEN_OUT_BYTES, WritingOut


def test_bytes_leave_the_buffers_as_they_come(tmp_path: Path) -> None:
    piece = os.urandom(WRITTEN_OUT_BYTES // 8 + 1)
    with (tmp_path / "file").open("xb") as file:
        out = WritingOut(file)
        for _ in range(17):
            out.write(piece)
        out.write(b"end")
        assert (tmp_path / "file").stat().st_size >= 2 * WRITTEN_OUT_BYTES
    assert (tmp_path / "file").read_bytes() == piece * 17 + b"end"


def test_a_disk_that_is_full_is_said_at_once() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    with pytest.raises(OSError, match="No space left"), Path("/dev/full").open("wb", buffering=0) as file:
        WritingOut(file).write(b"x")  # type: ignore[arg-type]
