"""docs/front-doors.md: its functions are served, and each snippet prints what the page shows."""

import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

from tests.conftest import ROOT, Runner, write_project

PAGE = (ROOT / "docs/front-doors.md").read_text()
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_the_snippets_print_what_the_page_says(tmp_path: Path) -> None:
    blocks = BLOCK.findall(PAGE)
    code = "\n".join(text for _, text in blocks if "@worker_function" in text)
    runner = Runner(write_project(tmp_path / "project", code), tmp_path / "outputs")
    snippets = [(text, then[1]) for (kind, text), then in pairwise(blocks) if kind == "python" and then[0] == "text"]
    assert snippets
    for snippet, printed in snippets:
        asked = snippet.replace("http://localhost:8081", runner.url)
        found = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, timeout=60, check=False)
        assert found.returncode == 0, snippet + found.stderr
        assert found.stdout == printed, snippet
    assert runner.stop() == 0
