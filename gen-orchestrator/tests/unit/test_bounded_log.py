"""The platform's own log file keeps a bounded size, and whole lines."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from gen_orchestrator.cli.bounded_log import BoundedLog
from gen_worker.log import Log

MAX_BYTES = 2000


def test_lines_of_many_threads_stay_whole_and_are_bounded(tmp_path: Path) -> None:
    path = tmp_path / "orchestrator.log"
    path.write_text("of an earlier start\n")
    stream = BoundedLog(path, MAX_BYTES)
    log = Log(stream, as_json=True)
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda number: log.info("said", number=number), range(500)))
    stream.close()
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == ["orchestrator.log", "orchestrator.log.1"]
    assert all(file.stat().st_size <= MAX_BYTES for file in files)
    lines = path.read_text().splitlines() + files[1].read_text().splitlines()
    assert all(line.startswith("{") and line.endswith("}") for line in lines)


def test_it_goes_on_where_an_earlier_start_ended(tmp_path: Path) -> None:
    path = tmp_path / "orchestrator.log"
    for word in ("one", "two"):
        stream = BoundedLog(path)
        stream.write(f"{word} \udcff\n")
        stream.close()
    assert path.read_text() == "one \\udcff\ntwo \\udcff\n"


def test_a_line_longer_than_the_bound_is_kept(tmp_path: Path) -> None:
    stream = BoundedLog(tmp_path / "a.log", 10)
    for _ in range(3):
        stream.write("x" * 50)
    stream.close()
    assert (tmp_path / "a.log").read_text() == "x" * 50
