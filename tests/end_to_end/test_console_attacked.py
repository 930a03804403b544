"""The dev runner's console against hostile functions and users, in a real browser. Skipped without a browser."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.browser import Tab, violations
from tests.conftest import Runner, write_project
from tests.hostile_project import CODE
from tests.waiting import until

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")

WATCH = """
window.shift = 0;
new PerformanceObserver(list => list.getEntries().forEach(each => { if (!each.hadRecentInput) window.shift += each.value; })).observe({type: 'layout-shift', buffered: true});
window.refused = [];
document.addEventListener('securitypolicyviolation', event => refused.push(event.violatedDirective + ' ' + event.blockedURI));
"""
PASTE = """names => {
    const data = new DataTransfer();
    for (const name of names) data.items.add(new File(['x'.repeat(name.length)], name));
    document.dispatchEvent(new ClipboardEvent('paste', {clipboardData: data, bubbles: true, cancelable: true}));
}"""


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory, browser: Any) -> Iterator[Runner]:
    folder = write_project(tmp_path_factory.mktemp("attacked") / "project", CODE)
    found = Runner(folder, folder.parent / "outputs")
    yield found
    found.stop()


@pytest.fixture
def tab(tab: Tab) -> Tab:
    tab.page.add_init_script(WATCH)
    return tab


def opened(tab: Tab, runner: Runner, function: str) -> Any:
    tab.page.goto(f"{runner.url}/docs#/run/{function}")
    tab.page.get_by_role("heading", name=function, exact=True).wait_for()
    return tab.page


def drop(tab: Tab, selector: str, files: list[Path]) -> None:
    """What the system does when somebody lets go of files over an element."""
    box = tab.page.locator(selector).bounding_box()
    at = {"x": box["x"] + box["width"] - 20, "y": box["y"] + box["height"] - 6}
    devtools = tab.context.new_cdp_session(tab.page)
    for kind in ("dragEnter", "dragOver", "drop"):
        data = {"items": [], "files": [str(each) for each in files], "dragOperationsMask": 1}
        devtools.send("Input.dispatchDragEvent", {"type": kind, **at, "data": data})


def written(folder: Path, **files: int) -> list[Path]:
    """Files of so many bytes; `a_png` is `a.png`."""
    paths = [folder / name.replace("_", ".") for name in files]
    for path, size in zip(paths, files.values(), strict=True):
        with path.open("wb") as file:
            file.truncate(size)
    return paths


def test_a_preview_is_shown_until_the_result_is_there(runner: Runner, tab: Tab, expect: Any, tmp_path: Path) -> None:
    page = opened(tab, runner, "sketch")
    page.locator("[name=go]").fill(str(tmp_path / "go"))
    page.locator("#run").click()
    preview = page.get_by_role("img", name="What is drawn so far")
    expect(preview).to_be_visible()
    until(lambda: preview.evaluate("image => image.naturalWidth") == 16)
    expect(page.locator(".so-far figcaption")).to_have_text("preview, step 4")  # not 5: those were no pictures
    assert "svg" not in page.locator("img").first.get_attribute("src")
    assert violations(page) == []
    page.get_by_role("link", name="Runs", exact=True).click()
    page.get_by_role("row").nth(1).get_by_role("link").click()
    expect(preview).to_be_visible()  # on the page of the run, too
    page.get_by_role("link", name="Functions", exact=True).click()
    page.get_by_role("link", name="sketch", exact=True).click()
    (tmp_path / "go").touch()
    expect(page.locator(".run")).to_have_attribute("data-status", "succeeded")
    expect(preview).to_have_count(0)
    expect(page.locator("figure[data-file] img")).to_have_count(1)
    assert (page.evaluate("refused"), tab.complaints) == ([], [])


def test_nothing_that_a_function_says_is_run(runner: Runner, tab: Tab, expect: Any) -> None:
    page = opened(tab, runner, "evil")
    page.locator("#run").click()
    expect(page.locator(".run")).to_have_attribute("data-status", "succeeded")
    page.locator("summary", has_text="Events (").click()
    assert page.locator(".answer img").evaluate_all("images => images.map(each => new URL(each.src).pathname.split('/')[1])") == ["v1"]
    page.locator("[name=how]").fill("raise")
    page.locator("#run").click()
    expect(page.locator(".run .problem")).to_contain_text("<script>")
    for place in ("Runs", "History"):
        page.get_by_role("link", name=place, exact=True).click()
        expect(page.locator("main h2")).to_have_text(place)
    page.get_by_role("link", name="Runs", exact=True).click()
    for row in (1, 2):
        page.get_by_role("row").nth(row).get_by_role("link").click()
        expect(page.get_by_role("region", name="Log lines")).to_contain_text("<script>")
        page.get_by_text("Events (").click()
        expect(page.get_by_role("region", name="Events")).to_contain_text("onerror")
        page.go_back()
    assert page.evaluate("[window.pwned, refused]") == [None, []]
    assert not page.locator("script:not([src]), img[src='x']").count()
    assert tab.complaints == []


def test_more_than_a_page_can_show_is_cut_and_says_so(runner: Runner, tab: Tab, expect: Any) -> None:
    page = opened(tab, runner, "words")
    page.locator("[name=pieces]").fill("20000")
    page.locator("#run").click()
    expect(page.get_by_text("Pieces (the last 2,000 of 20,000)")).to_be_visible()
    expect(page.locator(".answer .output")).to_contain_text("w19999")
    assert page.locator(".answer .output").evaluate("pre => pre.scrollTop + pre.clientHeight > pre.scrollHeight - 8")  # it stays at its end
    assert page.evaluate("shift") < 0.1  # what is "good" of a page: a stream pushes nothing about
    page = opened(tab, runner, "much")
    page.locator("[name=events]").fill("5000")
    page.locator("[name=megabytes]").fill("2")
    page.locator("#run").click()
    log = page.get_by_text(re.compile(r"Log \([2-5],\d+, the last 1,000 are kept\)"))  # of 5,000: some may be shed where a reader is slow
    expect(log).to_be_visible()
    expect(page.locator(".answer")).to_contain_text("The first 100,000 of 2,000,0")
    page.get_by_role("link", name="History", exact=True).click()
    expect(page.locator(".cell")).to_have_count(2)
    assert (page.evaluate("refused"), tab.complaints) == ([], [])


def test_files_are_dropped_on_their_fields_and_beside_them(runner: Runner, tab: Tab, expect: Any, tmp_path: Path) -> None:
    page = opened(tab, runner, "take")
    a, b, c, d, text = written(tmp_path, a_png=1, b_png=2, c_png=3, d_png=4, notes_txt=5)
    drop(tab, "[data-field=first] .drop", [a, b])
    expect(page.locator("[data-field=first]")).to_contain_text("a.png")
    expect(page.locator("[data-field=first] [role=status]")).to_have_text("This field takes one file; 1 more was left out.")
    drop(tab, "[data-field=second] .drop", [text])
    expect(page.locator("[data-field=second]")).to_contain_text("notes.txt is text/plain; expected image/*")
    drop(tab, "[data-field=many] .drop", [b, c])
    expect(page.locator("[data-field=many] .taken")).to_have_count(2)
    assert violations(page) == []
    page.get_by_role("button", name="Remove the file of second").click()
    drop(tab, "header h1", [d, a, b])  # one to `second`, one to `many`, which is full then
    expect(page.locator("[data-field=second]")).to_contain_text("d.png")
    expect(page.locator("[data-field=many] .taken")).to_have_count(3)
    expect(page.locator("#form > [role=status]")).to_have_text("1 file has no place in this form.")
    page.locator("#run").click()
    expect(page.locator(".answer .output")).to_contain_text('"second": 4')
    sizes = page.evaluate("JSON.parse(document.querySelector('.answer .output').textContent)")
    assert sizes == {"first": 1, "second": 4, "many": [2, 3, 1]}
    assert page.url.endswith("/docs#/run/take")  # a browser would open what is dropped beside a field
    assert tab.complaints == []


def test_files_are_pasted_one_and_several(runner: Runner, tab: Tab, expect: Any) -> None:
    page = opened(tab, runner, "take")
    page.evaluate(PASTE, ["1"])
    page.evaluate(PASTE, ["22", "333", "4444"])
    expect(page.locator("[data-field=many] .taken")).to_have_count(2)
    page.locator("#run").click()
    expect(page.locator(".answer .output")).to_contain_text('"second": 2')
    page.evaluate(PASTE, ["55555", "666666"])
    expect(page.locator("#form > [role=status]")).to_have_text("1 file has no place in this form.")
    page = opened(tab, runner, "much")
    page.evaluate(PASTE, ["1"])
    expect(page.locator("#form > [role=status]")).to_have_text("This form has no place for a file.")
    assert tab.complaints == []


def test_a_file_above_the_limit_is_refused_in_words(runner: Runner, tab: Tab, expect: Any, tmp_path: Path) -> None:
    page = opened(tab, runner, "take")
    drop(tab, "[data-field=first] .drop", written(tmp_path, big_bin=(256 << 20) + 1))
    expect(page.locator("[data-field=first]")).to_contain_text("268.4 MB")
    page.locator("#run").click()
    expect(page.locator(".run .problem")).to_contain_text("at most 268435456 are accepted")
    assert [each for each in tab.complaints if "413" not in each] == []
