"""A platform whose stderr is a full pipe that nobody reads."""

import os
import subprocess
from pathlib import Path

from platform_process import PlatformProcess
from serve_process import ServeProcess


class Unread(PlatformProcess):
    """Its logs go into such a pipe from the first line on."""

    def launch(self) -> "subprocess.Popen[bytes]":
        self.reads, writes = os.pipe()
        os.set_blocking(writes, False)
        try:
            while True:
                os.write(writes, b"x" * 4096)
        except BlockingIOError:
            os.set_blocking(writes, True)
        process = subprocess.Popen(self._command(), stdout=subprocess.PIPE, stderr=writes, env=self._env)
        os.close(writes)
        return process


class UnreadServe(Unread, ServeProcess):
    """The same for `gen-orchestrator serve`."""


def test_a_platform_whose_logs_nobody_reads_serves_on(project: Path, tmp_path: Path) -> None:
    platform = Unread(project, tmp_path / "data")
    try:
        assert platform.invoke("echo").status_code == 200
        assert platform.stop() == 0
    finally:
        platform.close()
        os.close(platform.reads)


def test_so_does_a_node(project: Path, tmp_path: Path) -> None:
    node = UnreadServe(project, tmp_path / "data", "", "node")
    try:
        assert node.invoke("echo").status_code == 200
        assert node.stop() == 0
    finally:
        node.close()
        os.close(node.reads)
