"""The console in a real browser: shadow runs, failing golden requests, a canary. Skipped without a browser."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from browser import Tab, go_by_keys, violations
from edited_platform import TAG, edited_platform, release_at
from platform_process import PlatformProcess

from gen_orchestrator.domain.canary import MIN_RUNS, takes_part

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")

MORE = """
@worker_function()
def mark(ctx: ActionContext, payload: Input) -> Output:
    return Output(text=str(VERSION))

@worker_function()
def plain(ctx: ActionContext, payload: Input) -> Output:
    return Output(text=payload.text)

@worker_function()
def falter(ctx: ActionContext, payload: Input) -> Output:
    if VERSION == 2: raise ValueError("no <b>more</b>")
    return Output(text=payload.text)
"""


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory, browser: Any) -> Iterator[PlatformProcess]:
    """VERSION is 2 at `dev`, and 1 at `prod`."""
    with edited_platform(tmp_path_factory.mktemp("trials"), MORE, "", "falter") as started:
        started.until(
            lambda: all(release_at(started, "dev", each) != release_at(started, "prod", each) for each in ("version", "mark", "plain"))
        )
        yield started


@pytest.fixture
def tab(tab: Tab, platform: PlatformProcess) -> Tab:
    tab.page.goto(f"{platform.url}/docs#/endpoints/local/probe")
    return tab


def test_shadow_runs_begin_are_compared_side_by_side_and_end(platform: PlatformProcess, tab: Tab, expect: Any) -> None:
    page, dialog = tab.page, tab.page.get_by_role("dialog")
    opener = page.get_by_role("button", name="Start shadow runs of version:prod")
    opener.click()
    dialog.get_by_label("Share of runs, in percent").fill("many")
    assert violations(page) == []
    dialog.get_by_role("button", name="Start shadow runs").click()
    expect(dialog.get_by_role("alert")).to_contain_text("percent")  # in the server's words
    page.keyboard.press("Escape")  # the button that was pressed has kept the focus, so that the dialog hears keys
    expect(dialog).to_have_count(0)
    expect(opener).to_be_focused()
    opener.click()
    dialog.get_by_label("Share of runs, in percent").fill("100")
    dialog.get_by_role("button", name="Start shadow runs").click()
    card = page.get_by_role("article", name="Shadow runs of version:prod")
    expect(card).to_contain_text("Nothing is compared yet")
    differing = card.locator(".differs")

    def is_compared() -> bool:
        """A copy that finds no free worker is dropped: another run brings another copy."""
        platform.invoke("version")
        return bool(platform.http.get(f"{TAG.format('version', 'prod')}/shadow").json()["compared"])

    platform.until(is_compared)
    expect(differing.first.locator("td")).to_have_text([platform_run(differing), "/text", '"1"', '"2"'])
    expect(card).to_contain_text("not equal")
    assert violations(page) == []
    card.get_by_role("button", name="Stop").click()
    expect(card).to_contain_text("ended")
    expect(card).to_contain_text("stopped")
    expect(card.get_by_role("button")).to_have_count(0)
    complaints = [each for each in tab.complaints if "400 (Bad Request)" not in each]  # Chromium tells of the one that was refused
    assert complaints == []


def platform_run(rows: Any) -> str:
    """What the first row has as the id of its run."""
    found: str = rows.first.get_by_role("link").inner_text()
    return found


def test_a_gate_that_fails_is_shown_before_and_after_the_click(platform: PlatformProcess, tab: Tab, expect: Any) -> None:
    old, run_id = release_at(platform, "prod", "mark"), platform.invoke("mark").json()["id"]
    golden = platform.http.post(f"/v1/runs/{run_id}/golden").json()["golden_id"]
    page, dialog = tab.page, tab.page.get_by_role("dialog")
    page.reload()
    opener = page.get_by_role("button", name="Promote or roll back mark:prod")
    opener.click()
    dialog.get_by_role("button", name="Promote", exact=True).click()
    told = dialog.get_by_role("listitem").filter(has_text=golden).first
    expect(told).to_contain_text("failed")
    expect(told.locator(".differs td")).to_have_text(["/text", '"1"', '"2"'])
    expect(dialog.get_by_role("alert")).to_contain_text("fails golden requests")
    expect(dialog.get_by_role("alert")).to_be_in_viewport()
    assert violations(page) == []
    page.keyboard.press("Escape")
    opener.click()  # before the click this time
    expect(dialog.get_by_role("status")).to_contain_text("failed on this release")
    expect(dialog.get_by_role("button", name="Promote all the same")).to_be_in_viewport()
    assert release_at(platform, "prod", "mark") == old
    dialog.get_by_label("Skip the golden requests").check()
    dialog.get_by_role("button", name="Promote all the same").click()
    expect(dialog).to_have_count(0)
    assert release_at(platform, "prod", "mark") == release_at(platform, "dev", "mark")
    platform.http.put(TAG.format("mark", "prod"), json={"release_id": old, "skip_gates": True})
    page.get_by_role("button", name=f"Forget the golden request {golden}").click()
    expect(page.get_by_text(golden)).to_have_count(0)
    assert [each for each in tab.complaints if "409 (Conflict)" not in each] == []


def test_a_canary_begins_ends_by_hand_and_is_taken_back_where_it_is_worse(platform: PlatformProcess, tab: Tab, expect: Any) -> None:
    new = release_at(platform, "dev", "falter")
    page, dialog = tab.page, tab.page.get_by_role("dialog")

    def start() -> None:
        page.get_by_role("button", name="Promote or roll back falter:prod").click()
        dialog.get_by_label("Only a share of the runs").check()
        dialog.get_by_label("Share of the tag's runs").fill("50")
        dialog.get_by_role("button", name="Start the canary").click()
        expect(dialog).to_have_count(0)

    start()
    row = page.get_by_role("row").filter(has=page.get_by_role("button", name="Promote or roll back falter:prod"))
    expect(row).to_contain_text(f"50 % to {new}")
    assert violations(page) == []
    row.get_by_role("button", name="End the canary").click()
    expect(row).not_to_contain_text("50 %")
    start()
    ids = [each for each in (f"falter-{number}" for number in range(100)) if takes_part(each, 50)]
    for run_id in ids[:MIN_RUNS]:
        platform.http.put(f"/v1/runs/{run_id}", params={"function": "local/probe/falter"}, json={})
    expect(row).to_contain_text(f"{new} was dropped: 100% of its last {MIN_RUNS} runs failed")
    page.get_by_role("button", name="Promote or roll back falter:prod").click()
    told = dialog.get_by_role("listitem").filter(has_text="canary at prod")
    expect(told).to_contain_text(f"It had 50 % of the runs, {MIN_RUNS} of them were looked at.")
    assert violations(page) == []
    assert tab.complaints == []


def test_from_a_form_to_a_promote_by_keyboard_alone(platform: PlatformProcess, tab: Tab, expect: Any) -> None:
    page = tab.page
    page.emulate_media(reduced_motion="reduce")

    tab_to = partial(go_by_keys, page)
    page.goto(f"{platform.url}/docs#/run/local/probe/echo")
    page.get_by_role("heading", name="local/probe/echo", exact=True).wait_for()
    tab_to("Skip to the content")
    page.keyboard.press("Enter")
    tab_to("Show functions with")
    page.keyboard.type("plain")
    tab_to("plain")
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="local/probe/plain", exact=True).wait_for()
    tab_to("text")
    page.keyboard.type("by keys alone")
    page.keyboard.press("Control+Enter")
    expect(page.locator(".run")).to_have_attribute("data-status", "succeeded")
    expect(page.locator("[name=text]")).to_be_focused()  # a run does not take the focus
    run_id = page.locator(".run .status a").get_attribute("href").rpartition("/")[2]
    tab_to(run_id[:18])
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="local/probe/plain:prod")).to_be_visible()
    expect(page.locator("#main")).to_be_focused()  # the link is gone: reading goes on at the new page
    tab_to("Run again")
    tab_to("Endpoints")  # round the page
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Endpoints").wait_for()
    page.get_by_role("link", name="local/probe", exact=True).wait_for()
    tab_to("local/probe")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Promote or roll back plain:prod").wait_for()
    tab_to("Function")
    page.keyboard.type("plain")
    tab_to("Promote or roll back plain:prod")
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("Nothing: payload and output are the same.")
    tab_to("Promote")
    page.keyboard.press("Enter")
    expect(dialog).to_have_count(0)
    expect(page.get_by_role("button", name="Promote or roll back plain:prod")).to_be_focused()
    assert release_at(platform, "prod", "plain") == release_at(platform, "dev", "plain")
    assert tab.complaints == []
