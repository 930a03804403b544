"""Websockets in the dev runner's console, in a real browser. Skipped without a browser."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.browser import Tab, go_by_keys, violations
from tests.conftest import Runner, write_project
from tests.console_project import CODE

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory, browser: Any) -> Iterator[Runner]:
    folder = write_project(tmp_path_factory.mktemp("console") / "project", CODE)
    found = Runner(folder, folder.parent / "outputs")
    yield found
    found.stop()


def opened(tab: Tab, runner: Runner, function: str) -> Any:
    tab.page.goto(f"{runner.url}/docs#/run/{function}")
    tab.page.get_by_role("heading", name=function, exact=True).wait_for()
    return tab.page


def test_talk_with_a_websocket(runner: Runner, tab: Tab, expect: Any, tmp_path: Path) -> None:
    page = opened(tab, runner, "chat")
    assert "Talk with <i>it</i>." in page.locator(".description").inner_text()
    assert f"{runner.url.replace('http', 'ws', 1)}/v1/realtime/chat" in page.locator(".ask").inner_text()
    assert 'with client.session("chat") as session:' in page.locator("#code-Python").inner_text()
    status, messages = page.locator(".status"), page.locator(".frame")
    page.locator("#send").click(force=True)  # not connected: nothing is sent
    expect(messages).to_have_count(0)
    assert violations(page) == []
    page.locator("#connect").click()
    expect(status).to_have_attribute("data-status", "open")
    page.locator("#message").fill("<b>hi</b>")
    page.locator("#send").click()
    expect(messages).to_have_count(2)
    assert [text.split("\n")[-1] for text in messages.all_inner_texts()] == ["<b>hi</b>"] * 2
    assert not page.locator(".frames b").count()
    page.get_by_label("Send it only if it is JSON").check()
    page.locator("#send").click()
    expect(page.locator("#session-wrong")).to_contain_text("This is no JSON")
    page.locator("#message").fill('{"a": "more than twenty bytes"}')
    page.locator("#send").click()
    expect(messages.last).to_contain_text('{"heard":31}')
    file = tmp_path / "sound.raw"
    file.write_bytes(bytes(range(256)) * 1024)
    page.get_by_label("File").set_input_files(file)
    page.locator("#send-file").click()
    expect(messages.last).to_contain_text('{"heard":262144}')
    page.get_by_label("In pieces").check()
    page.locator("#send-file").click()
    expect(page.locator(".clock")).to_contain_text("7 sent")  # four pieces of it
    assert violations(page) == []
    page.get_by_role("link", name="say", exact=True).click()  # it stays open meanwhile
    page.get_by_role("link", name="chat websocket").click()
    expect(status).to_have_attribute("data-status", "open")
    page.get_by_label("Send it only if it is JSON").uncheck()
    page.locator("#message").fill("fail")
    page.locator("#send").click()
    expect(status).to_contain_text("The handler failed with ValueError. (1011 error:ValueError)")
    assert violations(page) == []
    page.locator(".status a").click()
    expect(page.locator(".problem").first).to_contain_text("as <b>asked</b>")
    assert tab.complaints == []


def test_talk_with_a_websocket_by_keyboard_alone(runner: Runner, tab: Tab, expect: Any) -> None:
    page = opened(tab, runner, "say")
    for name, key in (("chat websocket", "Enter"), ("Connect", "Space")):
        go_by_keys(page, name)
        page.keyboard.press(key)
        page.get_by_role("heading", name="chat", exact=True).wait_for()
    expect(page.locator(".status")).to_have_attribute("data-status", "open")
    go_by_keys(page, "Message")
    page.keyboard.type("by keys")
    page.keyboard.press("Control+Enter")
    expect(page.locator(".frame")).to_have_count(2)
    expect(page.locator("#message")).to_be_focused()
    go_by_keys(page, "Messages")
    go_by_keys(page, "Disconnect")
    page.keyboard.press("Enter")
    expect(page.locator(".status")).to_contain_text("This page closed it.")


def test_the_microphone_is_sent_as_samples(runner: Runner, browser: Any, expect: Any) -> None:
    tab = Tab(browser, viewport={"width": 1280, "height": 900}, permissions=["microphone"])
    page = opened(tab, runner, "chat")
    page.locator("#connect").click()
    expect(page.locator(".status")).to_have_attribute("data-status", "open")
    page.locator("#microphone").click()
    expect(page.locator(".frames")).to_contain_text('{"heard":4096}')
    page.locator("#microphone").click()
    expect(page.locator("#microphone")).to_have_text("Send the microphone")
    tab.close()
