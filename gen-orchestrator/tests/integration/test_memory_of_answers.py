"""Large answers: the platform has about their size in memory while nobody reads them, and gives it back."""

import re
import socket
from pathlib import Path

from platform_process import PlatformProcess

from gen_orchestrator.allocator import return_large_blocks

CODE = """
import msgspec
from gen_worker import ActionContext, worker_function

class In(msgspec.Struct):
    n: int

class Out(msgspec.Struct):
    text: str

@worker_function()
def big(ctx: ActionContext, payload: In) -> Out:
    return Out("x" * payload.n)
"""
TOML = 'schema_version = 1\nname = "big"\nmain = "big.main"\ngen_worker = ">=0.2.0,<0.3.0"\n'
REQUEST = (
    b"POST /v1/local/big/big HTTP/1.1\r\nhost: %b\r\ncontent-type: application/json\r\ncontent-length: 25\r\n\r\n"
    + b'{"payload":{"n":5000000}}'
)


def resident_mb(pid: int) -> int:
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1]) >> 10


def test_large_answers_leave_no_memory_behind(tmp_path: Path) -> None:
    package = tmp_path / "big" / "src" / "big"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "main.py").write_text(CODE)
    (tmp_path / "big" / "cozy.toml").write_text(TOML)
    platform = PlatformProcess(tmp_path / "big", tmp_path / "data")
    try:
        where = platform.url.removeprefix("http://")
        host, _, port = where.partition(":")
        before = resident_mb(platform.process.pid)
        callers = [socket.create_connection((host, int(port)), timeout=60) for _ in range(16)]
        for caller in callers:
            caller.sendall(REQUEST % where.encode())
        for caller in callers:
            assert caller.recv(12, socket.MSG_WAITALL) == b"HTTP/1.1 200"  # the whole answer is written; the rest is not read
        for caller in callers:
            caller.close()
        if return_large_blocks():  # otherwise it is another C library, whose habits are unknown
            platform.until(lambda: resident_mb(platform.process.pid) - before < 60)  # of 80 MB, and as much again to make them
    finally:
        platform.close()
