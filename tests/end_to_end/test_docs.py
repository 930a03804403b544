"""The documentation: its snippets do what the pages show, or say why they are not run; the site is built without a warning."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.browser import Tab, chromium
from tests.snippets import session, snippets_of

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
# Pages with tests of their own, which run their snippets in other ways.
ELSEWHERE = ("client.md", "front-doors.md", "console.md", "error-codes.md")
# Pages that are made to be run: each of their snippets is run, or says why not.
RUN = sorted(
    path.relative_to(DOCS).as_posix()
    for path in [*DOCS.glob("guides/*.md"), *(DOCS / f"{name}.md" for name in ("tutorial", "coming-from", "models", "worker"))]
)


@pytest.mark.parametrize("name", RUN)
def test_snippets(name: str, tmp_path: Path) -> None:
    with session(tmp_path / "page") as page:
        for snippet in snippets_of((DOCS / name).read_text()):
            if snippet.why_not is None:
                page.run(snippet)


def test_every_other_snippet_says_why_it_is_not_run() -> None:
    """A titled snippet of such a page is a whole file; unit tests read those."""
    undecided = []
    for path in sorted(DOCS.rglob("*.md")):
        name = path.relative_to(DOCS).as_posix()
        if name not in RUN and name not in ELSEWHERE and not name.startswith("error-codes/"):
            undecided += [f"{name}:{each.line}" for each in snippets_of(path.read_text()) if each.why_not is None and not each.title]
    assert undecided == [], "write <!-- not run: REASON --> above these snippets, or let tests run their page (RUN)"


# A few seconds; where every core is busy, minutes.
BUILDS = pytest.mark.timeout(400)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site. Its build must end without a warning."""
    if importlib.util.find_spec("mkdocs") is None:
        pytest.skip("mkdocs is not installed")
    folder = tmp_path_factory.mktemp("docs") / "site"
    env = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(folder)]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=350, check=False)
    assert [line for line in done.stderr.splitlines() if line.startswith(("WARNING", "ERROR"))] == []
    assert done.returncode == 0, done.stderr
    return folder


@BUILDS
def test_the_site_has_the_pages_that_are_made(site: Path) -> None:
    assert (site / "index.html").exists()
    assert "worker_function" in (site / "reference/python.html").read_text()
    assert "cozyctl promote" in (site / "reference/cli.html").read_text()


@BUILDS
def test_the_site_names_nothing_that_it_would_fetch(site: Path) -> None:
    """Links to read elsewhere are fine; scripts, styles, fonts and pictures come with the site."""
    for page in site.rglob("*.html"):
        text = page.read_text()
        fetched = re.findall(r'<(?:script|img|iframe|source)\b[^>]*?\bsrc="(https?:[^"]+)|<link\b[^>]*?\bhref="(https?:[^"]+)', text)
        assert fetched == [], page.name
    for style in site.rglob("*.css"):
        assert re.findall(r"url\((https?:[^)]+)", style.read_text()) == []


@BUILDS
def test_the_site_works_in_a_folder_without_a_network(site: Path) -> None:
    if not (site / "assets/site/mermaid.min.js").exists() or not (site / "assets/site/iframe-worker.js").exists():
        pytest.skip("needs the scripts that scripts/site-assets fetches")
    asked: list[str] = []
    with chromium() as browser:
        tab = Tab(browser, offline=True)
        tab.page.on("request", lambda request: asked.append(request.url))
        tab.page.goto((site / "architecture.html").as_uri())
        tab.page.wait_for_function("document.querySelector('div.mermaid')?.offsetHeight > 200")  # drawn: the source was in a <pre>
        tab.page.locator("input.md-search__input").fill("rollback")
        tab.page.locator(".md-search-result__link").first.wait_for()
        tab.close()
    assert [url for url in asked if url.startswith(("http", "ws"))] == []


@BUILDS
def test_llms_txt_names_every_page(site: Path) -> None:
    named = re.findall(r"\]\(([^)]+)\)", (DOCS / "llms.txt").read_text())
    pages = set(re.findall(r"- ([a-z/-]+\.md)", (ROOT / "mkdocs.yml").read_text())) - {"index.md"}
    assert pages == set(named)
    assert [name for name in named if not (site / name).exists()] == []
