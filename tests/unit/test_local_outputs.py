"""Refs that are a file for one save and a folder for another."""

from pathlib import Path

import pytest

from gen_worker.files.local_outputs import LocalOutputs


def test_a_name_is_a_file_or_a_folder_and_not_both(tmp_path: Path) -> None:
    outputs = LocalOutputs(tmp_path)
    outputs.save_bytes("o/x.txt", b"1", create=False)
    for ref in ("o/x.txt/y", "o"):
        for create in (False, True):
            with pytest.raises(ValueError, match="clashes with a saved file"):
                outputs.save_bytes(ref, b"2", create=create)
    assert (tmp_path / "o/x.txt").read_bytes() == b"1"
    assert [path.name for path in (tmp_path / "o").iterdir()] == ["x.txt"]
