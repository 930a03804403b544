"""The built console in the wheel matches its source, is small, and loads nothing from other hosts."""

import gzip
import hashlib
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILT = ROOT / "src/gen_worker/http/console"
MAX_ZIPPED_BYTES = 300_000


def test_it_was_built_from_the_source_as_it_is() -> None:
    told = {name: digest for digest, _, name in (line.partition("  ") for line in (BUILT / "SOURCES.txt").read_text().splitlines())}
    source = ROOT / "console"
    files = [path for path in (source / "src").rglob("*") if path.is_file()] + [source / name for name in told if "/" not in name]
    now = {path.relative_to(source).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    assert now == told, "the console's source was edited: run `make console`, and commit src/gen_worker/http/console"


def test_all_of_it_is_small() -> None:
    sizes = {path.name: len(gzip.compress(path.read_bytes(), 6)) for path in BUILT.iterdir() if path.suffix in (".html", ".css", ".js")}
    assert sum(sizes.values()) < MAX_ZIPPED_BYTES, sizes


def test_its_page_loads_nothing_from_elsewhere_and_runs_no_inline_script() -> None:
    page = (BUILT / "index.html").read_text()
    loaded = set(re.findall(r'(?:src|href)="([^"]*)"', page)) - {"data:,", "/openapi.json"}
    assert {"/docs/console.js", "/docs/console.css"} <= loaded
    assert all((BUILT / path.removeprefix("/docs/")).is_file() for path in loaded)
    assert "<style" not in page
    assert all(not body.strip() for body in re.findall(r"<script[^>]*>(.*?)</script>", page, re.S))
    assert 'data-server="SERVER"' in page


def test_its_lock_file_names_no_host() -> None:
    assert '"resolved"' not in (ROOT / "console/package-lock.json").read_text()
    versions = re.findall(r'^ {4}"[^"]+": "([^"]+)",?$', (ROOT / "console/package.json").read_text(), re.M)
    exact = [version for version in versions if re.fullmatch(r"\d+\.\d+\.\d+", version)]
    assert len(exact) >= 9, "every package has one exact version"
