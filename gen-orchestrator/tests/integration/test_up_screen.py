"""What `cozyctl up` shows while it starts and serves: in a file, on a terminal, and in the background of a terminal."""

import os
import re
import signal
import subprocess
from itertools import islice
from pathlib import Path

import httpx
from hello_project import write_hello
from platform_process import COZYCTL
from terminal import LIMIT_S, Terminal
from waiting import until

ERASE_LINE, HIDE_CURSOR, SHOW_CURSOR = "\x1b[2K", "\x1b[?25l", "\x1b[?25h"


def test_a_start_says_which_folder_it_reads(tmp_path: Path) -> None:
    command = _up(tmp_path, write_hello(tmp_path / "one", "one"), write_hello(tmp_path / "two", "two"))
    with (tmp_path / "two" / "cozy.toml").open("a") as file:
        file.write('\n[secrets]\nTOKEN = "of a service"\n\n[models]\ntoy = "cozy:local/toy"\nmine = "cozy:local/mine"\n')
    command += ["--model", f"mine={tmp_path}"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said = [process.stderr.readline().rstrip() for _ in range(4)]
        warnings = [line.rstrip() for line in islice((line for line in process.stderr if line.startswith("warning")), 2)]
        process.send_signal(signal.SIGINT)
    assert said[:3] == [f"starting; the state is in {tmp_path / 'data'}", "reading one (1 of 2)", "reading two (2 of 2)"]
    assert said[3].startswith("http://127.0.0.1:")
    why = "the secret TOKEN is declared in cozy.toml but not set for local/two, so no worker was started"
    model = "the model cozy:local/toy:latest is not stored on this platform: cozyctl models push FOLDER local/toy:latest"
    assert warnings == [f"warning: two: {why}. Set with: cozyctl secrets set local/two TOKEN", f"warning: two: {model}"]


def test_on_a_terminal_one_line_changes_and_is_gone_when_it_serves(tmp_path: Path) -> None:
    with Terminal(_up(tmp_path, write_hello(tmp_path / "one", "one"))) as terminal:
        terminal.until("idle")
        before, _, after = terminal.text.partition("/docs")
        assert "reading one (1 of 1)" in before
        assert "reading" not in after
        assert before.rpartition("reading")[2].count(ERASE_LINE)
        terminal.interrupt()
        terminal.status()


def test_in_the_background_it_paints_no_picture_over_what_others_print(tmp_path: Path) -> None:
    up = " ".join(map(str, _up(tmp_path, write_hello(tmp_path / "one", "one"))))
    with Terminal(["bash", "-c", f"set -m; {up} & echo pid $!.; wait %1; echo ended"]) as terminal:
        terminal.until("-d '")  # the last line of those that say what to type
        found = re.search(r"pid (\d+)\.(?s:.*)(http://127.0.0.1:\d+)/docs", terminal.text)
        assert found is not None
        assert httpx.get(f"{found[2]}/readyz", timeout=60).status_code == 200  # its loop has gone on, and would have painted
        os.kill(int(found[1]), signal.SIGINT)
        terminal.until("ended")
        assert "reading one (1 of 1)" in terminal.text
        assert ERASE_LINE not in terminal.text
        assert HIDE_CURSOR not in terminal.text


def test_stopped_by_ctrl_z_it_leaves_the_terminal_as_it_was(tmp_path: Path) -> None:
    up = " ".join(map(str, _up(tmp_path, write_hello(tmp_path / "one", "one"))))
    with Terminal(["bash", "-c", f"set -m; {up}; echo now stopped; fg %1; echo ended"]) as terminal:
        terminal.until("idle")
        terminal.type("\x1a")
        terminal.until("now stopped")
        before = terminal.text.partition("now stopped")[0]
        assert HIDE_CURSOR not in before.rpartition(SHOW_CURSOR)[2]
        until(lambda: "idle" in terminal.text.partition("now stopped")[2], LIMIT_S)
        terminal.interrupt()
        terminal.until("ended")


def _up(tmp_path: Path, *folders: Path) -> list[str]:
    return [str(COZYCTL), "up", *map(str, folders), "--listen", "127.0.0.1:0", "--data", str(tmp_path / "data")]
