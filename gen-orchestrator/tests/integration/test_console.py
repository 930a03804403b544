"""The console of the platform in a real browser; skipped where there is none."""

from collections.abc import Iterator
from typing import Any

import pytest
from browser import Tab, chromium, violations
from platform_process import PlatformProcess, write_project

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory, browser: Any) -> Iterator[PlatformProcess]:
    folder = tmp_path_factory.mktemp("console")
    found = PlatformProcess(write_project(folder / "project"), folder / "data")
    yield found
    found.close()


@pytest.fixture
def tab(browser: Any) -> Iterator[Tab]:
    found = Tab(browser, viewport={"width": 1280, "height": 900})
    yield found
    found.close()


@pytest.fixture
def expect() -> Any:
    return pytest.importorskip("playwright.sync_api").expect


def test_try_a_function_then_find_its_run_and_why_it_ran_there(platform: PlatformProcess, tab: Tab, expect: Any) -> None:
    page = tab.page
    page.goto(f"{platform.url}/docs#/run/local/probe/words")
    page.get_by_role("heading", name="local/probe/words", exact=True).wait_for()
    page.locator("[name=text]").fill("one two <b>three</b>")
    page.locator("#run").click()
    expect(page.locator(".run")).to_have_attribute("data-status", "succeeded")
    expect(page.locator(".answer .output")).to_have_text("onetwo<b>three</b>")
    page.get_by_role("link", name="Runs", exact=True).click()
    row = page.get_by_role("row").filter(has_text="local/probe/words:prod").first
    expect(row).to_contain_text("succeeded")
    assert violations(page) == []
    row.get_by_role("link").click()
    expect(page.get_by_role("heading", name="Why this worker")).to_be_visible()
    expect(page.get_by_role("region", name="Input", exact=True)).to_contain_text("one two <b>three</b>")
    expect(page.locator(".chosen")).to_have_count(1)
    expect(page.locator(".legend")).to_contain_text("queue")
    assert violations(page) == []
    page.get_by_role("button", name="Edit and run").click()
    expect(page.locator("[name=text]")).to_have_value("one two <b>three</b>")
    assert tab.complaints == []


def test_a_run_goes_on_without_the_page_and_is_canceled_from_it(platform: PlatformProcess, tab: Tab, expect: Any) -> None:
    page = tab.page
    run_id = platform.submit("sleep", {"seconds": 600, "text": "deep"})
    page.goto(f"{platform.url}/docs#/runs/{run_id}")
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator(".badge").first).to_have_text("canceled")
    page.get_by_role("button", name="Run again").click()
    expect(page.locator("code").first).not_to_have_text(run_id)
    expect(page.get_by_text("Again from")).to_be_visible()
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator(".badge").first).to_have_text("canceled")
    page.goto(f"{platform.url}/docs#/runs/no-such-run")
    expect(page.get_by_role("alert")).to_contain_text("no-such-run")
