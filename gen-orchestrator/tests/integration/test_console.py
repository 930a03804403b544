"""The platform's console in a real browser. Skipped without a browser."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import PHONE, Tab, console_routes, routes_of, violations
from model_project import CODE, COZY_TOML, safetensors
from platform_process import PlatformProcess, write_project

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory, browser: Any) -> Iterator[PlatformProcess]:
    folder = tmp_path_factory.mktemp("console")
    reader, weights = folder / "reader", folder / "weights"
    for path, text in (("cozy.toml", COZY_TOML), ("src/reader/__init__.py", ""), ("src/reader/main.py", CODE)):
        (reader / path).parent.mkdir(parents=True, exist_ok=True)
        (reader / path).write_text(text)
    weights.mkdir()
    (weights / "config.json").write_text("{}")
    (weights / "weights.safetensors").write_bytes(safetensors(size=100_000))
    env = {"COZY_MODEL_OVERRIDES": f"toy={weights}"}
    found = PlatformProcess(write_project(folder / "project"), folder / "data", str(reader), env=env)
    yield found
    found.close()


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
    expect(page.locator(".legend")).to_contain_text("inference")
    assert violations(page) == []
    page.get_by_role("button", name="Make it a golden request").click()
    expect(page.get_by_text("From now on a release has to give this output")).to_be_visible()
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


def test_promote_after_a_look_at_what_changes_then_roll_back(platform: PlatformProcess, tab: Tab, expect: Any) -> None:
    main = platform.project / "src/probe/main.py"
    main.write_text(
        main.read_text().replace(
            'class Input(msgspec.Struct):\n    text: str = ""',
            'class Input(msgspec.Struct):\n    text: str = ""\n    tone: str = "warm"',
            1,
        )
    )
    first, second = two_releases(platform)
    page = tab.page
    page.goto(f"{platform.url}/#/endpoints")
    page.get_by_role("link", name="local/probe", exact=True).click()
    page.get_by_role("button", name="Promote or roll back echo:prod").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text(first)
    expect(dialog).to_contain_text("/tone")
    expect(dialog).to_contain_text("No gate has been run on it.")
    assert violations(page) == []
    dialog.get_by_role("button", name="Promote").click()
    expect(dialog).to_have_count(0)
    row = page.get_by_role("row").filter(has=page.get_by_role("button", name="Promote or roll back echo:prod"))
    expect(row).to_contain_text(second)
    page.get_by_role("button", name="Promote or roll back echo:prod").click()
    dialog.get_by_role("button", name="Roll back").click()
    expect(row).to_contain_text(first)
    page.locator("[name=secret-name]").fill("HF_TOKEN")
    page.locator("[name=secret-value]").fill("hf_secret")
    page.get_by_role("button", name="Set the secret").click()
    page.get_by_role("button", name="Remove the secret HF_TOKEN").click()
    expect(page.get_by_role("button", name="Remove the secret HF_TOKEN")).to_have_count(0)
    for release in (first, second):
        page.get_by_role("checkbox", name=f"Compare {release}").check()
    page.get_by_role("button", name="Compare two releases").click()
    expect(page.get_by_role("region", name="Schemas of echo")).to_contain_text('"tone"')
    assert violations(page) == []
    page.goto(f"{platform.url}/docs#/run/local/probe/version")
    page.get_by_label("Run beside it on").select_option(second)
    page.locator("#run").click()
    expect(page.locator(".run[data-status=succeeded]")).to_have_count(2)
    assert tab.complaints == []


def two_releases(platform: PlatformProcess) -> tuple[str, str]:
    """The release that `prod` points at, and the one that an edit made."""

    def found() -> Any:
        data = platform.http.get("/v1/releases", params={"endpoint": "probe"}).json()["data"]
        return len(data) == 2 and (data[1]["release_id"], data[0]["release_id"])

    ids: tuple[str, str] = platform.until(found)
    return ids


def test_workers_and_builds_and_keys(platform: PlatformProcess, tab: Tab, expect: Any) -> None:
    run = platform.invoke("chatter", {"times": 3}).json()
    assert platform.http.post("/v1/local/reader/read", json={"payload": {}}).json()["status"] == "succeeded"
    page = tab.page
    page.goto(f"{platform.url}/docs#/workers")
    expect(page.get_by_role("meter").first).to_be_visible()  # a model in a tier, as a bar
    expect(page.locator(".meter .legend").first).to_contain_text("toy")
    assert violations(page) == []
    page.get_by_role("link", name=run["worker_id"]).click()
    expect(page.get_by_role("region", name="Log of the worker")).to_contain_text("chatter 000002")
    assert violations(page) == []
    page.get_by_role("link", name="Builds", exact=True).click()
    expect(page.get_by_text("Nothing was published yet")).to_be_visible()
    build = platform.http.post("/v1/endpoints/publish", content=b"no archive", headers={"content-type": "application/gzip"}).json()
    page.get_by_role("link", name=build["build_id"]).click()
    expect(page.locator(".badge")).to_have_text("failed")
    expect(page.get_by_role("alert")).to_be_visible()
    assert violations(page) == []
    page.get_by_role("link", name="Keys", exact=True).click()
    page.get_by_label("Name").fill("for a <b>test</b>")
    page.get_by_role("button", name="Make a key").click()
    expect(page.get_by_role("region", name="The new key")).to_contain_text("cz_")
    page.get_by_role("button", name="Done").click()
    row = (
        page.get_by_role("region", name="Keys", exact=True).get_by_role("row").filter(has_text="for a <b>test</b>")
    )  # the audit names it, too
    row.get_by_role("button", name="Revoke").click()
    assert violations(page) == []
    page.get_by_role("dialog").get_by_role("button", name="Revoke").click()
    expect(row).to_contain_text("revoked")
    assert tab.complaints == []


def test_the_history_of_a_tab_is_a_notebook(platform: PlatformProcess, tab: Tab, expect: Any) -> None:
    page = tab.page
    page.goto(f"{platform.url}/docs#/run/local/probe/echo")
    for text in ("first words", "other words"):
        page.locator("[name=text]").fill(text)
        page.locator("#run").click()
        expect(page.locator(".answer .output")).to_contain_text(text)
    page.get_by_role("link", name="History").click()
    page.reload()
    expect(page.locator(".cell")).to_have_count(2)
    page.get_by_role("button", name="Run again").first.click()
    expect(page.locator(".cell")).to_have_count(3)
    expect(page.locator(".cell .succeeded")).to_have_count(3)
    assert violations(page) == []
    page.get_by_label("compare").nth(1).check()
    page.get_by_label("compare").nth(2).check()
    page.get_by_role("button", name="Compare two runs").click()
    expect(page.get_by_role("region", name="Both inputs").locator(".differs")).to_have_count(1)
    expect(page.get_by_role("region", name="Both outputs")).to_contain_text("other words")
    assert violations(page) == []
    assert tab.complaints == []


def test_where_keys_are_asked_for_the_page_asks_for_one(tmp_path: Path, tab: Tab, expect: Any) -> None:
    keyed = PlatformProcess(write_project(tmp_path / "project"), tmp_path / "data", "--keys")
    try:
        page = tab.page
        page.goto(f"{keyed.url}/docs#/run/local/probe/picture")
        page.get_by_label("Key").fill("cz_wrong")
        assert violations(page) == []
        page.get_by_role("button", name="Log in").click()
        expect(page.get_by_role("alert")).to_contain_text("the key is not accepted")
        page.get_by_label("Key").fill((keyed.data / "operator.key").read_text())
        page.get_by_role("button", name="Log in").click()
        page.locator("#run").click()
        image = page.locator("figure img")  # an <img> sends no key: the page fetches it, and shows a copy
        expect(image).to_have_attribute("src", re.compile(f"^blob:{re.escape(keyed.url)}"))
        assert "$COZY_API_KEY" in page.locator("#code-curl").inner_text()
        page.reload()
        expect(page.get_by_role("heading", name="local/probe/picture", exact=True)).to_be_visible()  # the tab keeps it
        assert page.evaluate("Object.keys(localStorage).filter(name => localStorage[name].includes('cz_'))") == []
        page.get_by_role("link", name="Keys", exact=True).click()
        page.get_by_role("button", name="Log out").click()
        expect(page.get_by_role("heading", name="Log in")).to_be_visible()
    finally:
        keyed.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_fits_a_phone_and_is_free_of_what_axe_knows(platform: PlatformProcess, browser: Any, expect: Any, scheme: str) -> None:
    run = platform.invoke("words", {"text": "a b"}).json()
    release, worker = run["release_id"], run["worker_id"]
    build = platform.http.post("/v1/endpoints/publish", content=b"", headers={"content-type": "application/gzip"}).json()["build_id"]
    tab = Tab(browser, viewport=PHONE, has_touch=True, color_scheme=scheme)
    page = tab.page
    places = {
        "run/local/probe/read": "local/probe/read",
        "runs": "Runs",
        f"runs/{run['id']}": "local/probe/words:prod",
        "history": "History",
        "endpoints": "Endpoints",
        "releases": "Endpoints",
        "endpoints/local/probe": "local/probe",
        f"releases/{release}": release,
        f"compare/releases/{release}/{release}": "Two releases",
        f"compare/runs/{run['id']}/{run['id']}": "Two runs",
        "workers": "Workers",
        f"workers/{worker}": worker,
        "builds": "Builds",
        f"builds/{build}": build,
        "usage": "Usage",
        "keys": "Keys",
    }
    assert console_routes() - {"models"} <= routes_of(places), "a page that nobody looks at"
    page.goto(f"{platform.url}/docs")
    for place, heading in places.items():
        page.evaluate("hash => location.hash = hash", f"#/{place}")
        page.get_by_role("heading", name=heading, exact=True, level=2).wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"], place
        assert violations(page) == [], place
    assert tab.complaints == []
    for place, words in {
        "runs/none": "no run 'none'", "workers/none": "none", "releases/none": "no release 'none'", "builds/none": "none", "endpoints/local/none": "none", "nowhere": "There is no page nowhere.",
    }.items():  # fmt: skip
        page.evaluate("hash => location.hash = hash", f"#/{place}")
        page.locator("main").get_by_text(words).first.wait_for()
        assert violations(page) == [], place
    tab.close()
