"""The dev runner's console in a real browser. Skipped without a browser."""

import json
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.browser import AXE, PHONE, Tab, console_routes, routes_of, shift_of, violations, watch_shifts
from tests.conftest import Runner, write_project
from tests.console_project import CODE
from tests.waiting import until

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


class DevCommand(Runner):
    """`cozyctl dev`, which takes up changes."""

    program = (sys.executable, "-c", "from gen_worker.cli.main import main; main()", "dev")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_project(tmp_path_factory.mktemp("console") / "project", CODE)


@pytest.fixture(scope="module")
def runner(folder: Path, browser: Any) -> Iterator[Runner]:
    found = Runner(folder, folder.parent / "outputs")
    yield found
    found.stop()


def test_pages_are_asked_of_axe() -> None:
    if not AXE.exists():
        pytest.skip("no page is asked of axe-core, which is missing: make console-check")


def opened(tab: Tab, runner: Runner, function: str) -> Any:
    tab.page.goto(f"{runner.url}/docs#/run/{function}")
    tab.page.get_by_role("heading", name=function, exact=True).wait_for()
    return tab.page


def payload_of(page: Any) -> Any:
    """What the form sends, as its curl says."""
    words = shlex.split(page.locator("#code-curl").inner_text().replace("\\\n", " "))
    return json.loads(words[words.index("-d") + 1])["payload"]


def test_fill_the_form_run_and_see_text_as_it_streams(runner: Runner, tab: Tab, expect: Any) -> None:
    page = opened(tab, runner, "say")
    assert "What to <i>say</i>" in page.locator("#form").inner_text()  # shown as text, not run as HTML
    assert "Says it, <b>piece by piece</b>." in page.locator(".description").first.inner_text()
    page.locator("[name=prompt]").fill("kite's")
    assert page.locator("[name=times]").input_value() == "2"
    page.get_by_role("slider", name="times").press("ArrowRight")
    assert page.locator("[name=times]").input_value() == "3"
    page.locator("#run").click()
    output = page.locator(".answer .output")
    expect(output).to_have_text("<b>kite's</b> <b>kite's</b> <b>kite's</b> ")
    expect(page.locator(".run")).to_have_attribute("data-status", "succeeded")
    assert page.locator("#run").evaluate("button => button === document.activeElement")  # the focus stays where it was
    assert not page.locator(".output b").count()
    assert payload_of(page)["times"] == 3
    assert "'\\''" in page.locator("#code-curl").inner_text()
    page.get_by_role("tab", name="Python").click()
    assert '"times": 3' in page.locator("#code-Python").inner_text()
    page.get_by_role("tab", name="TypeScript").click()
    assert "await fetch(" in page.locator("#code-TypeScript").inner_text()
    assert tab.complaints == []


def test_every_kind_of_value_is_a_part_of_the_form(runner: Runner, tab: Tab, expect: Any) -> None:
    page = opened(tab, runner, "echo")
    start = payload_of(page)
    assert start["seed"] == 7  # the default, not the first example
    assert start["quality"] == "good"
    assert start["flag"] is None
    assert start["on"] is True
    assert start["options"] == {"strength": 0.5, "style": "ink"}
    assert "pet" not in start  # made by the function where it is not given
    assert page.locator("[name=quality] option:checked").inner_text() == "good"
    page.locator("[name=seed]").fill("9007199254740993")  # more than a double holds
    page.locator("[name=quality]").select_option(label="fast")
    page.locator("[data-field=flag]").get_by_text("false", exact=True).click()
    page.locator("[name='options.strength']").fill("0.75")
    page.get_by_text("Give pet").click()
    page.locator("[name='pet:kind']").select_option(label="Dog")
    page.locator("[name='pet.name']").fill("Rex")
    page.get_by_text("Give tags").click()
    page.get_by_role("button", name="Add to tags").click()
    page.get_by_role("button", name="Add to tags").click()
    page.locator("[name='tags[1]']").fill("b")
    page.get_by_role("button", name="Remove tags 1").click()
    page.get_by_role("button", name="Add to weights").click()
    page.get_by_label("key 1").fill("x")
    page.locator("[name='weights.x']").fill("1.5")
    page.locator("[name='size:kind']").select_option(label="text")
    page.locator("[name=size]").fill("large")
    page.locator("[name=api_key]").fill("hunter2")
    page.locator("[name=anything]").fill('{"a": [1, null]}')
    assert page.locator("[name=api_key]").get_attribute("type") == "password"
    assert "hunter2" not in page.locator("#code-curl").inner_text()
    page.locator("#run").click()
    expect(page.locator(".run")).to_have_attribute("data-status", "succeeded")
    got = json.loads(page.locator(".answer .output").inner_text())["got"]
    assert got == {
        "seed": 9007199254740993,
        "quality": "fast",
        "flag": False,
        "on": True,
        "options": {"strength": 0.75, "style": "ink"},
        "pet": {"type": "Dog", "name": "Rex"},
        "tags": ["b"],
        "weights": {"x": 1.5},
        "size": "large",
        "api_key": "hunter2",
        "anything": {"a": [1, None]},
    }
    assert violations(page) == []
    assert tab.complaints == []


def test_what_is_wrong_is_said_at_its_field_until_it_is_mended(runner: Runner, tab: Tab, expect: Any) -> None:
    page = opened(tab, runner, "echo")
    page.locator("[name=seed]").fill("a few")
    page.locator("#run").click()
    expect(page.locator("[data-field=seed] .wrong")).to_have_text("a few is not a number")
    page.locator("[name=seed]").fill("1.5")
    page.locator("[name=anything]").fill("null")
    expect(page.locator("[data-wrong]")).to_have_count(0)
    page.locator("#run").click()
    expect(page.locator("[data-field=seed][data-wrong]")).to_have_count(1)
    assert page.locator("[name=seed]").get_attribute("aria-invalid") == "true"
    expect(page.locator(".run")).to_have_attribute("data-status", "failed")
    page.locator("[name=seed]").fill("2")
    expect(page.locator("[data-wrong]")).to_have_count(0)
    page.locator("#run").click()
    expect(page.locator(".run")).to_have_attribute("data-status", "succeeded")
    expect(page.locator("[data-wrong]")).to_have_count(0)


def test_a_run_goes_on_unseen_while_another_function_is_looked_at(runner: Runner, tab: Tab, expect: Any) -> None:
    page = opened(tab, runner, "slow")
    page.locator("#run").click()
    expect(page.locator(".answer .output")).to_contain_text("from slow")
    expect(page.locator(".run [role=status]")).to_contain_text("denoise")
    model = page.get_by_role("progressbar", name="downloading hf:owner/big")
    expect(model).to_have_attribute("aria-valuenow", "25")
    expect(page.locator(".progress.model .figures")).to_have_text("25.0 MB of 100.0 MB, 5.0 MB/s, about 15 s left")
    log = page.locator("summary", has_text="Log (1)")
    expect(log).to_contain_text("half <b>way</b>")
    log.click()
    expect(page.get_by_role("region", name="Log")).to_have_text("half <b>way</b>")
    assert violations(page) == []
    page.get_by_role("link", name="say", exact=True).click()
    page.locator("[name=prompt]").fill("new")
    page.locator("#run").click()
    expect(page.locator(".answer .output")).to_have_text("<b>new</b> <b>new</b> ")
    page.get_by_role("link", name="slow", exact=True).click()
    before = len(page.locator(".answer .output").inner_text())
    until(lambda: len(page.locator(".answer .output").inner_text()) > before)
    page.locator("#cancel").click()
    expect(page.locator(".run")).to_have_attribute("data-status", "canceled")
    page.get_by_role("link", name="say", exact=True).click()
    expect(page.locator(".answer .output")).to_have_text("<b>new</b> <b>new</b> ")
    assert tab.complaints == []


def test_files_are_given_dropped_in_and_shown_in_their_order(runner: Runner, tab: Tab, expect: Any) -> None:
    page = opened(tab, runner, "draw")
    page.locator("input[type=file]").set_input_files({"name": "in.png", "mimeType": "image/png", "buffer": b"12345"})
    assert "-F 'image=@in.png'" in page.locator("#code-curl").inner_text()
    page.locator("#run").click()
    expect(page.locator(".answer .output")).to_contain_text("5 bytes")
    names = [each.split(" ")[0] for each in page.locator("figure figcaption").all_inner_texts()]
    assert names == ["0.png", "1.png", "2.png", "evil.svg", "tone.wav"]
    assert page.locator("figure img").count() == 3  # the drawing that could run scripts is a download
    until(lambda: page.evaluate("[...document.querySelectorAll('figure img')].every(image => image.naturalWidth === 16)"))
    assert page.locator("figure audio").count() == 1
    page.get_by_role("button", name="Remove the file of image").click()
    page.evaluate(
        "() => { const data = new DataTransfer(); data.items.add(new File(['1234567'], 'pasted.bin'));"
        " document.dispatchEvent(new ClipboardEvent('paste', {clipboardData: data, bubbles: true, cancelable: true})); }"
    )
    expect(page.locator(".taken")).to_contain_text("pasted.bin")
    page.locator("#run").click()
    expect(page.locator(".answer .output")).to_contain_text("7 bytes")
    assert violations(page) == []
    assert tab.complaints == []


def test_lists_of_files_and_bytes_are_sent_to_their_places(runner: Runner, tab: Tab, expect: Any) -> None:
    page = opened(tab, runner, "measure-all")
    page.locator("[name=images]").set_input_files(
        [{"name": f"{number}.png", "mimeType": "image/png", "buffer": b"x" * (number + 3)} for number in range(2)]
    )
    page.locator("[name=raw]").set_input_files({"name": "raw.txt", "mimeType": "text/plain", "buffer": b"raw words"})
    page.locator("#run").click()
    expect(page.locator(".run")).to_have_attribute("data-status", "succeeded")
    assert json.loads(page.locator(".answer .output").inner_text()) == {"sizes": [3, 4], "raw": "raw words"}
    assert tab.complaints == []


def test_a_type_may_hold_itself_and_pictures_of_a_stream_come_before_its_end(runner: Runner, tab: Tab, expect: Any) -> None:
    page = opened(tab, runner, "grow")
    page.get_by_text("Give child").click()
    page.locator("[name='child.name']").fill("leaf")
    page.get_by_text("Give child").nth(1).click()
    page.locator("#run").click()
    expect(page.locator(".run")).to_have_attribute("data-status", "succeeded")
    leaf = {"name": "root", "child": None}
    assert json.loads(page.locator(".answer .output").inner_text()) == {"got": {"name": "root", "child": {"name": "leaf", "child": leaf}}}
    page = opened(tab, runner, "place")  # its payload is a list
    page.locator("[name='[0]']").fill("4")
    page.locator("#run").click()
    expect(page.locator(".answer .output")).to_contain_text('"x": 4')
    page = opened(tab, runner, "constructor")
    page.locator("#run").click()
    expect(page.locator(".answer .output")).to_have_text("its name is one of every object's")
    page = opened(tab, runner, "steps")
    page.locator("#run").click()
    expect(page.locator("figure img")).to_have_count(2)
    until(lambda: page.evaluate("[...document.querySelectorAll('figure img')].every(image => image.naturalWidth === 16)"))
    page.locator("#cancel").click()
    expect(page.locator(".run")).to_have_attribute("data-status", "canceled")
    page.get_by_role("link", name="Runs", exact=True).click()
    expect(page.get_by_role("row").filter(has_text="canceled").first).to_contain_text("steps")
    page.get_by_role("link", name="Models", exact=True).click()
    expect(page.get_by_text("No model was asked for yet.")).to_be_visible()
    assert violations(page) == []
    assert tab.complaints == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone_all_is_as_wide_as_the_phone(runner: Runner, browser: Any, expect: Any, scheme: str) -> None:
    tab = Tab(browser, viewport=PHONE, has_touch=True, color_scheme=scheme)
    page = opened(tab, runner, "echo")
    width = "document.documentElement.scrollWidth"
    assert page.evaluate(width) == PHONE["width"]
    assert page.locator("#form").bounding_box()["y"] < PHONE["height"] / 3  # the list does not take the screen
    assert violations(page) == []
    page.locator(".functions select").select_option("draw")
    page.locator("#run").click()
    expect(page.locator("figure img")).to_have_count(3)
    assert page.evaluate(width) == PHONE["width"]
    assert violations(page) == []
    tab.close()


PLATFORM_ONLY = {"endpoints", "endpoints/", "releases", "releases/", "workers", "workers/", "builds", "builds/", "usage", "keys"}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_fits_a_phone_and_is_free_of_what_axe_knows(runner: Runner, browser: Any, expect: Any, scheme: str) -> None:
    runner.run("say", {"prompt": "x"}, run_id="for-pages")
    places = {
        "run/say": "say",
        "run/chat": "chat",
        "runs": "Runs",
        "runs/for-pages": "say",
        "history": "History",
        "compare/runs/for-pages/for-pages": "Two runs",
        "models": "Models",
    }
    assert console_routes() - PLATFORM_ONLY <= routes_of(places), "a page that nobody looks at"
    tab = Tab(browser, viewport=PHONE, has_touch=True, color_scheme=scheme)
    page = tab.page
    page.goto(f"{runner.url}/docs")
    for place, heading in places.items():
        page.evaluate("hash => location.hash = hash", f"#/{place}")
        page.get_by_role("heading", name=heading, exact=True, level=2).wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"], place
        assert violations(page) == [], place
    for place, words in {"runs/none": "no run 'none'", "nowhere": "There is no page nowhere."}.items():
        page.evaluate("hash => location.hash = hash", f"#/{place}")
        page.get_by_text(words).wait_for()
        assert violations(page) == [], place
    tab.close()


@pytest.mark.parametrize("viewport", [{"width": 1280, "height": 900}, PHONE], ids=["desk", "phone"])
def test_nothing_moves_while_a_run_goes_on(runner: Runner, browser: Any, expect: Any, viewport: dict[str, int]) -> None:
    tab = Tab(browser, viewport=viewport)
    page = opened(tab, runner, "slow")
    watch_shifts(page)
    page.locator("#run").click()
    until(lambda: len(page.locator(".answer .output").inner_text()) > 300)
    run_id = page.locator(".run .status a").get_attribute("href").rpartition("/")[2]
    runner.http.post(f"/v1/runs/{run_id}/cancel")  # by another than the user of this page: no input comes before what follows
    expect(page.locator(".run")).to_have_attribute("data-status", "canceled")
    assert shift_of(page) < 0.01, page.evaluate("window.shifts")
    tab.close()


def test_the_first_paint_is_quick_and_the_policy_strict(runner: Runner, tab: Tab) -> None:
    page = opened(tab, runner, "say")
    paint = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
    assert paint < 60_000  # measured alone: docs/console.md
    sent = page.evaluate("performance.getEntriesByType('resource').reduce((sum, each) => sum + each.transferSize, 0)")
    assert 0 < sent < 300_000
    answer = runner.http.get("/docs")
    assert "'unsafe" not in answer.headers["content-security-policy"]
    again = runner.http.get("/docs/console.js", headers={"if-none-match": runner.http.get("/docs/console.js").headers["etag"]})
    assert again.status_code == 304
    assert runner.http.get("/docs/../app.py").status_code == 404
    assert runner.http.get("/docs/nothing.js").status_code == 404


def test_edited_code_broken_code_and_a_server_that_is_down_are_told_live(tmp_path: Path, tab: Tab, expect: Any) -> None:
    folder = write_project(tmp_path / "project", CODE)
    runner = DevCommand(folder, tmp_path / "outputs")
    page = opened(tab, runner, "say")
    (main,) = folder.glob("src/*/main.py")
    page.locator("[name=prompt]").fill("kept")
    main.write_text(
        main.read_text().replace("times: Annotated[int, Clamp(1, 5)] = 2", "times: Annotated[int, Clamp(1, 9)] = 4\n    loud: bool = False")
    )
    page.get_by_role("checkbox", name="loud").wait_for(state="attached")
    assert page.locator("[name=times]").input_value() == "4"
    assert page.locator("[name=prompt]").input_value() == "kept"
    good = main.read_text()
    main.write_text(good + "\nthis is not Python\n")
    expect(page.get_by_role("alert")).to_contain_text("The code as it is now has a mistake")
    assert page.locator("[name=prompt]").input_value() == "kept"
    main.write_text(good)
    expect(page.get_by_role("alert")).to_have_count(0)
    runner.stop()
    expect(page.get_by_role("alert")).to_contain_text(f"{runner.url} does not answer")
    expect(page.get_by_role("alert")).to_contain_text("cozyctl dev")
    page.locator("#run").click()
    expect(page.locator(".run .problem")).to_contain_text("does not answer")
    again = DevCommand(folder, tmp_path / "outputs-again", "--listen", runner.url.removeprefix("http://"))
    try:
        expect(page.locator(".banners .problem")).to_have_count(0)
        page.locator(".run").get_by_role("button", name="Try again").click()
        expect(page.locator(".answer .output")).to_contain_text("kept")
    finally:
        again.stop()
