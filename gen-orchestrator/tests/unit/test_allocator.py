"""Large blocks go back to the system when they are freed, whatever smaller ones were made between them."""

import subprocess
import sys

import pytest

from gen_orchestrator.allocator import return_large_blocks

CODE = """
import re
from pathlib import Path
from gen_orchestrator.allocator import return_large_blocks

def resident_mb():
    return int(re.search(r"RssAnon:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) >> 10

return_large_blocks()
del_me = b"x" * 5_000_000  # glibc learns from the first one that is freed
del del_me
before, large, small = resident_mb(), [], []
for _ in range(40):
    large.append(b"x" * 5_000_000)
    small.append(b"x" * 5000)
assert resident_mb() - before > 150
large.clear()
print(resident_mb() - before)
"""


def test_freed_blocks_go_back() -> None:
    if not return_large_blocks():
        pytest.skip("another C library")
    found = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, timeout=60, check=True)
    assert int(found.stdout) < 50
