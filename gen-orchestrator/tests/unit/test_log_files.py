"""Workers' logs: bounded, while positions in them stay valid."""

import os
from pathlib import Path

from gen_orchestrator.fleet.log_files import MAX_FILES, LogFiles


def test_the_oldest_lines_go_and_places_stay(tmp_path: Path) -> None:
    logs = LogFiles(tmp_path, 1 << 16)
    with logs.path("w").open("ab", buffering=0) as log:  # as a worker has it
        for number in range(20_000):
            log.write(f"line {number:06d}\n".encode())
            if number % 1000 == 0:
                logs.bound(["w"])
        logs.bound(["w"])
    assert logs.tail("w").endswith(b"line 019999\n")
    assert logs.tail("w").startswith(b"line "), "no part of a line"
    if logs.end("w") == 20_000 * 12:  # a file system that can give room back in its place
        begin = logs.begin("w")
        assert 0 < begin <= logs.end("w") - (1 << 16)
        assert logs.path("w").stat().st_blocks * 512 <= (1 << 16) * 2
        assert logs.read("w", begin // 12 * 12 + 12, 12) == f"line {begin // 12 + 1:06d}\n".encode()
    else:
        assert logs.end("w") <= (1 << 16) * 2


def test_files_of_workers_that_are_gone_are_kept_for_the_last_of_them(tmp_path: Path) -> None:
    logs = LogFiles(tmp_path)
    for number in range(MAX_FILES + 5):
        logs.path(f"w{number}").write_text("x")
        os.utime(logs.path(f"w{number}"), (number, number))
    logs.bound(["w0"])
    left = {path.stem for path in tmp_path.iterdir()}
    assert left == {"w0", *(f"w{number}" for number in range(5, MAX_FILES + 5))}
    assert logs.read("nobody", 0, 1) is None
    assert (logs.begin("nobody"), logs.end("nobody"), logs.tail("nobody")) == (0, 0, b"")
