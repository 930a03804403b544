"""The console in a real browser: expired keys, budgets, usage, webhooks, and a platform that stops. Skipped without a browser."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import Tab, violations
from platform_process import PlatformProcess, write_project
from realtime_served import up_served
from webhook_receiver import Receiver

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory, browser: Any) -> Iterator[PlatformProcess]:
    """A platform that asks for keys; `http` has the operator's."""
    folder = tmp_path_factory.mktemp("accounts")
    started = PlatformProcess(write_project(folder / "project"), folder / "data", "--keys", "--allow-private-webhooks")
    started.http.headers["authorization"] = f"Bearer {operators_key(started)}"
    yield started
    started.close()


def operators_key(platform: PlatformProcess) -> str:
    return (platform.data / "operator.key").read_text().strip()


def log_in(page: Any, platform: PlatformProcess, key: str, place: str) -> None:
    page.goto(f"{platform.url}/docs#/{place}")
    page.get_by_label("Key").fill(key)
    page.get_by_role("button", name="Log in").click()


def test_budgets_usage_receipts_and_webhooks_have_their_places(keyed: PlatformProcess, tab: Tab, expect: Any) -> None:
    page, receiver = tab.page, Receiver()
    try:
        hook = f"{receiver.url}/<b>hook</b>"
        run_id = keyed.invoke("sleep", {"seconds": 0.05}, webhook=hook).json()["id"]  # an echo may take no whole millisecond
        log_in(page, keyed, operators_key(keyed), f"runs/{run_id}")
        expect(page.get_by_text("CPU time")).to_be_visible()
        told = page.get_by_role("region", name="Webhooks").get_by_role("row")
        expect(told.nth(1)).to_contain_text("delivered")
        expect(told.nth(1)).to_contain_text("/<b>hook</b>")
        assert violations(page) == []
        page.get_by_role("button", name="Deliver again").click()
        expect(told).to_have_count(3)
        expect(told.nth(2)).to_contain_text("delivered")
    finally:
        receiver.close()
    page.get_by_role("link", name="Usage", exact=True).click()
    row = page.get_by_role("row").filter(has_text="local/probe/sleep")
    expect(row.get_by_role("cell").nth(1)).to_have_text("1")
    page.get_by_label("By").select_option("day")
    expect(page.get_by_role("columnheader", name="Day")).to_be_visible()
    assert violations(page) == []
    page.get_by_role("link", name="Keys", exact=True).click()
    page.get_by_label("Name").fill("bounded")
    page.get_by_text("Budgets", exact=True).first.click()
    page.get_by_label("Runs in a time").fill("sixty")
    page.get_by_role("button", name="Make a key").click()
    expect(page.get_by_role("alert")).to_contain_text("sixty")
    page.get_by_label("Runs in a time").fill("60/m")
    page.get_by_role("button", name="Make a key").click()
    page.get_by_role("button", name="Done").click()
    row = page.get_by_role("region", name="Keys", exact=True).get_by_role("row").filter(has_text="bounded")
    expect(row).to_contain_text("60/m")
    row.get_by_role("button", name="Budgets of").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Runs at once").fill("3")
    assert violations(page) == []
    dialog.get_by_role("button", name="Keep").click()
    expect(row).to_contain_text("runs at once 3")
    assert [each for each in tab.complaints if "401" not in each and "400" not in each] == []


def test_a_key_that_ends_is_asked_for_again_and_the_form_stays(keyed: PlatformProcess, browser: Any, tab: Tab, expect: Any) -> None:
    made = keyed.http.post("/v1/keys", json={"name": "short", "scopes": ["invoke"]}).json()
    page = tab.page
    log_in(page, keyed, made["key"], "run/local/probe/echo")
    page.locator("[name=text]").fill("kept words")
    keyed.http.delete(f"/v1/keys/{made['key_id']}")
    page.locator("#run").click()
    expect(page.get_by_role("heading", name="Log in")).to_be_visible()
    expect(page.get_by_role("alert").first).to_contain_text("key")
    page.get_by_label("Key").fill(operators_key(keyed))
    page.get_by_role("button", name="Log in").click()
    expect(page.locator("[name=text]")).to_have_value("kept words")
    page.locator("#run").click()
    expect(page.locator(".answer .output")).to_contain_text("kept words")
    other = tab.context.new_page()  # another tab has no key, and no history of this one
    other.goto(f"{keyed.url}/docs#/history")
    expect(other.get_by_role("heading", name="Log in")).to_be_visible()
    other.get_by_label("Key").fill(operators_key(keyed))
    other.get_by_role("button", name="Log in").click()
    expect(other.get_by_text("Nothing yet.")).to_be_visible()
    other.get_by_role("link", name="Keys", exact=True).click()
    other.get_by_role("button", name="Log out").click()
    expect(other.get_by_role("heading", name="Log in")).to_be_visible()
    page.locator("#run").click()
    expect(page.locator(".run")).to_have_attribute("data-status", "succeeded")


def test_a_stream_goes_on_where_the_platform_went_away_and_came_back(tmp_path: Path, tab: Tab, expect: Any) -> None:
    project, data, page = write_project(tmp_path / "project"), tmp_path / "data", tab.page
    platform = PlatformProcess(project, data)
    page.goto(f"{platform.url}/docs#/run/local/probe/words")
    page.locator("[name=text]").fill("one two three four")
    page.locator("[name=seconds]").fill("0.2")
    page.locator("#run").click()
    expect(page.locator(".answer .output")).to_contain_text("two")
    platform.kill()
    expect(page.locator(".banners [role=alert]")).to_contain_text("does not answer")
    expect(page.locator(".run [role=status]")).to_contain_text("connection lost; trying again")
    again = PlatformProcess(project, data, "--listen", platform.url.removeprefix("http://"))
    try:
        expect(page.locator(".run")).to_have_attribute("data-status", "succeeded")
        expect(page.locator(".answer .output")).to_have_text("onetwothreefour")
        expect(page.locator(".banners [role=alert]")).to_have_count(0)
    finally:
        again.close()


def test_talk_with_a_websocket_of_a_platform_that_asks_for_keys(tmp_path: Path, tab: Tab, expect: Any) -> None:
    with up_served(tmp_path, "--keys") as (_, platform):
        page = tab.page
        log_in(page, platform, operators_key(platform), "run/local/demo/mirror")
        page.get_by_role("heading", name="local/demo/mirror", exact=True).wait_for()
        tab.complaints.clear()  # of what was asked without the key
        page.locator("#connect").click()
        page.locator("#message").fill("hello")
        expect(page.locator(".status")).to_have_attribute("data-status", "open")
        page.locator("#send").click()
        expect(page.locator(".frame").last).to_contain_text("received bytes, 5 B")
        assert violations(page) == []
        page.locator("#disconnect").click()
        expect(page.locator(".status")).to_contain_text("This page closed it.")
        page.locator(".status a").click()
        expect(page.locator(".facts-list")).to_contain_text("1 messages, 5 B")
        expect(page.locator(".facts").first).to_contain_text("succeeded")
        expect(page.get_by_role("button", name="Run again")).to_have_count(0)
        assert violations(page) == []
        assert tab.complaints == []
