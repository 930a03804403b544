"""A headless Chromium for tests of pages, one for a file of tests, and what axe-core says of a page. Skipped where there is no browser.

Its fixtures are known to every test: both conftest.py import them."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

FLAGS = "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync"
AXE = Path(__file__).resolve().parents[1] / "console/node_modules/axe-core/axe.min.js"
WAIT_MS = 60_000
PHONE = {"width": 390, "height": 844}


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser; its pages wait up to a minute for what they look for."""
    sync_api = pytest.importorskip("playwright.sync_api")
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("needs chromium")
    sync_api.expect.set_options(timeout=WAIT_MS)
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS.split(), timeout=WAIT_MS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """One browser for a file of tests."""
    with chromium() as found:
        yield found


class Tab:
    """A page, and everything that its console complained of."""

    def __init__(self, browser: Any, **options: Any) -> None:
        self.context = browser.new_context(**options)
        self.context.set_default_timeout(WAIT_MS)
        self.page = self.context.new_page()
        self.complaints: list[str] = []
        self.page.on("console", lambda said: self.complaints.append(said.text) if said.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def close(self) -> None:
        self.context.close()


@pytest.fixture
def tab(browser: Any) -> Iterator[Tab]:
    """A page of a desk's size, of its own for each test."""
    found = Tab(browser, viewport={"width": 1280, "height": 900})
    yield found
    found.close()


@pytest.fixture
def expect() -> Any:
    """Playwright's assertions, which wait for what they assert."""
    return pytest.importorskip("playwright.sync_api").expect


def violations(page: Any) -> list[str]:
    """What axe-core finds wrong with a page for who reads by ear or works by keyboard. Nothing without its package; a test of its own says that it is missing."""
    if not AXE.exists():
        return []
    page.evaluate(AXE.read_text())
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [f"{each['id']}: {node['html'][:200]} {node['failureSummary'][:300]}" for each in found["violations"] for node in each["nodes"]]
