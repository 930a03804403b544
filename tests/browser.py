"""A headless Chromium for tests of pages, one for a file of tests, and what axe-core says of a page. Skipped where there is no browser.

Its fixtures are known to every test: both conftest.py import them."""

import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

FLAGS = "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync --use-fake-device-for-media-stream --use-fake-ui-for-media-stream"
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


_NAME_OF_FOCUSED = """() => {
    const focused = document.activeElement;
    if (focused === document.body) return '';
    return focused.labels?.[0]?.innerText || focused.ariaLabel || focused.innerText || '';
}"""


def go_by_keys(page: Any, name: str) -> None:
    """Go on with the tab key until what has the focus is called so, and shows it."""
    passed = []
    for _ in range(150):
        page.keyboard.press("Tab")
        passed.append(page.evaluate(_NAME_OF_FOCUSED))
        if passed[-1].startswith(name):
            assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none", f"{name} does not show its focus"
            return
    raise AssertionError(f"{name!r} has not had the focus; what had it: {passed}")


_WATCH_SHIFTS = """() => {
    window.shifts = [];
    const note = each => each.hadRecentInput || window.shifts.push([each.value, ...each.sources.map(({node}) => node?.className || node?.nodeName)]);
    new PerformanceObserver(list => list.getEntries().forEach(note)).observe({type: 'layout-shift'});
}"""


def watch_shifts(page: Any) -> None:
    """Note from now on what moves on this page without its user's doing (the parts of its Cumulative Layout Shift)."""
    page.evaluate(_WATCH_SHIFTS)


def shift_of(page: Any) -> float:
    """The sum of what has moved: 0.1 is the most that a good page has."""
    return float(page.evaluate("window.shifts.reduce((sum, [value]) => sum + value, 0)"))


PAGES = Path(__file__).resolve().parents[1] / "console/src/pages/Pages.tsx"


def console_routes() -> set[str]:
    """The pages that the console's router knows: `runs`, and `runs/` for that of one of them."""
    found = {"run/"}  # the playground, which is no page of the table
    for name, shown in re.findall(r'case "(\w+)":\s+return (.+?);', PAGES.read_text(), re.DOTALL):
        found |= {name, f"{name}/"} if "about ?" in shown else {f"{name}/"} if "about" in shown else {name}
    return found


def routes_of(places: Iterable[str]) -> set[str]:
    """The pages that these places are of."""
    return {f"{page}{slash}" for page, slash, _ in (place.partition("/") for place in places)}


def violations(page: Any) -> list[str]:
    """What axe-core finds wrong with a page for who reads by ear or works by keyboard. Nothing without its package; a test of its own says that it is missing."""
    if not AXE.exists():
        return []
    page.evaluate(AXE.read_text())
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [f"{each['id']}: {node['html'][:200]} {node['failureSummary'][:300]}" for each in found["violations"] for node in each["nodes"]]
