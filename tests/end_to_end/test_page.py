"""The page at /docs in a real browser; skipped where there is none."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import Runner

FLAGS = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync"
CODE = """
class In(msgspec.Struct):
    prompt: Annotated[str, msgspec.Meta(description="What to say")]
    times: Annotated[int, Clamp(1, 5)] = 2

class Out(msgspec.Struct):
    text: str

@worker_function
def say(ctx: ActionContext, payload: In) -> Iterator[Out]:
    for _ in range(payload.times):
        yield Out(f"<b>{payload.prompt}</b>")

@worker_websocket()
async def chat(ctx: ActionContext, socket: RealtimeSocket) -> None:
    "Talk with <i>it</i>."
"""


@pytest.fixture
def browser() -> Iterator[Any]:
    webdriver = pytest.importorskip("selenium.webdriver")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("needs chromium and chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in FLAGS.split():
        options.add_argument(flag)
    found = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield found
    found.quit()


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_fill_the_form_run_and_see_the_result(project: Callable[..., Path], start_runner: Callable[..., Runner], browser: Any) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    runner = start_runner(project(CODE))
    browser.get(f"{runner.url}/docs")
    wait = WebDriverWait(browser, 15)
    wait.until(lambda page: page.find_elements("name", "prompt"))
    assert "What to say" in browser.find_element("id", "form").text
    assert browser.find_element("name", "times").get_attribute("max") == "5"
    browser.find_element("name", "prompt").send_keys("kite")
    browser.find_element("id", "run").click()
    wait.until(lambda page: page.find_element("id", "result").text.count("kite") == 2)
    assert "<b>kite</b>" in browser.find_element("id", "result").text  # shown as text, not run as HTML
    assert not browser.find_elements("css selector", "#result b")
    listed = browser.find_element("id", "websockets").text
    assert f"{runner.url.replace('http', 'ws', 1)}/v1/realtime/chat" in listed
    assert "Talk with <i>it</i>." in listed
    assert browser.get_log("browser") == []
