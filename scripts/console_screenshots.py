"""The pictures in docs/console.md, made anew: `python scripts/console_screenshots.py`, with Chromium, playwright and pillow.

It starts `cozyctl up` and `cozyctl dev` on a small project, drives their pages as a person would, and writes PNG files of few colours.
"""

import json
import struct
import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "gen-orchestrator/tests")]

from browser import PHONE, Tab, chromium  # noqa: E402 - found by the path above
from model_project import CODE as MODEL_CODE  # noqa: E402
from model_project import COZY_TOML  # noqa: E402
from platform_process import PlatformProcess  # noqa: E402
from tests.conftest import Runner  # noqa: E402
from waiting import until  # noqa: E402

OUT = ROOT / "docs/console"
SIZE = {"width": 1120, "height": 760}
CODE = '''
import io, time
from collections.abc import Iterator
from typing import Annotated, Literal
import msgspec
from gen_worker import ActionContext, Asset, Clamp, RealtimeSocket, worker_function, worker_websocket


class Input(msgspec.Struct):
    prompt: Annotated[str, msgspec.Meta(description="What to paint", examples=["hills in the evening"])]
    steps: Annotated[int, Clamp(1, 50)] = 20
    style: Literal["ink", "oil", "pastel"] = "pastel"
    upscale: bool | None = None
    reference: Asset | None = None


class Output(msgspec.Struct):
    image: Asset
    seed: int


@worker_function()
def paint(ctx: ActionContext, payload: Input) -> Output:
    """Paints a picture of the prompt."""
    from PIL import Image, ImageDraw

    ctx.log(f"painting {payload.prompt!r} in {payload.style}")
    picture = Image.new("RGB", (480, 270))
    draw = ImageDraw.Draw(picture)
    for y in range(270):
        draw.line([(0, y), (480, y)], fill=(250 - y // 3, 170 - y // 3, 120 + y // 3))
    draw.ellipse([330, 60, 400, 130], fill=(255, 236, 190))
    for number, tone in enumerate(((120, 90, 140), (84, 66, 116), (48, 44, 86))):
        ctx.progress((number + 1) / 3, stage="painting")
        hills = [(x, 170 + 35 * number - (x * (number + 3) % 140) // 4) for x in range(0, 481, 40)]
        draw.polygon([(0, 270), *hills, (480, 270)], fill=tone)
    data = io.BytesIO()
    picture.save(data, "PNG")
    return Output(image=ctx.save_bytes(f"runs/{ctx.run_id}/outputs/picture.png", data.getvalue()), seed=7)


class Question(msgspec.Struct):
    prompt: str


class Delta(msgspec.Struct):
    text: str


@worker_function()
def chat(ctx: ActionContext, payload: Question) -> Iterator[Delta]:
    """Answers, token by token."""
    for word in ("A wave is a pattern that travels while the water itself stays nearly where it is. " * 3).split(" "):
        time.sleep(0.02)
        yield Delta(text=word + " ")


@worker_websocket()
async def count(ctx: ActionContext, sock: RealtimeSocket) -> None:
    """Counts the words of each message."""
    async for data in sock.iter_bytes():
        await sock.send_json({"words": len(data.split())})
'''


def main() -> None:
    OUT.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as name, chromium() as browser:
        folder = Path(name)
        package = folder / "studio/src/studio"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text("")
        (package / "main.py").write_text(CODE)
        (folder / "studio/cozy.toml").write_text(
            'schema_version = 1\nname = "studio"\nmain = "studio.main"\ngen_worker = ">=0.2.0,<0.3.0"\n'
        )
        runner = Runner(folder / "studio", folder / "outputs")
        try:
            dev(browser, runner.url)
        finally:
            runner.stop()
        models = write_reader(folder / "reader")
        env = {"COZY_MODEL_OVERRIDES": f"toy={models}"}
        platform = PlatformProcess(folder / "studio", folder / "data", str(folder / "reader"), env=env)
        try:
            on_platform(browser, platform, package / "main.py")
        finally:
            platform.close()


def write_reader(folder: Path) -> Path:
    """A project whose function takes a model, and the model's folder."""
    for path, text in (("cozy.toml", COZY_TOML), ("src/reader/__init__.py", ""), ("src/reader/main.py", MODEL_CODE)):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    models = folder.parent / "models"
    models.mkdir()
    (models / "config.json").write_text("{}")
    (models / "weights.safetensors").write_bytes(weights(30_000_000))
    return models


def weights(count: int) -> bytes:
    header = json.dumps({"w": {"dtype": "F16", "shape": [count], "data_offsets": [0, 2 * count]}}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(2 * count)


def dev(browser: Any, url: str) -> None:
    for name, options in (("playground", {"viewport": SIZE}), ("phone", {"viewport": PHONE, "color_scheme": "dark"})):
        tab = Tab(browser, **options)
        page = tab.page
        page.goto(f"{url}/docs#/run/paint")
        page.locator("#run").click()
        page.locator(".run[data-status=succeeded] img").wait_for()
        if name == "phone":
            page.locator(".answer").scroll_into_view_if_needed()
        shoot(tab, name)
    tab = Tab(browser, viewport=SIZE)
    page = tab.page
    page.goto(f"{url}/docs#/run/count")
    page.locator("#connect").click()
    page.locator(".status[data-status=open]").wait_for()
    for number, text in enumerate(("a wave travels", "while the water stays nearly where it is"), start=1):
        page.locator("#message").fill(text)
        page.locator("#send").click()
        page.locator(".frame").nth(2 * number - 1).wait_for()
    shoot(tab, "session")


def on_platform(browser: Any, platform: PlatformProcess, main: Path) -> None:
    run_id = platform.http.post("/v1/local/studio/paint", json={"payload": {"prompt": "hills in the evening", "steps": 30}}).json()["id"]
    for prompt in ("why do waves break?", "what is foam?"):
        platform.http.post("/v1/local/studio/chat", json={"payload": {"prompt": prompt}})
    main.write_text(
        main.read_text()
        .replace("steps: Annotated[int, Clamp(1, 50)] = 20", "steps: Annotated[int, Clamp(1, 30)] = 20\n    seed: int = 7")
        .replace("nearly where it is.", "almost in place.")
    )
    until(lambda: len(platform.http.get("/v1/releases").json()["data"]) == 3, 60)
    platform.http.post("/v1/local/studio/paint:dev", json={"payload": {"prompt": "hills"}})
    platform.http.post("/v1/local/reader/read", json={"payload": {}})

    def opened(place: str) -> Tab:
        tab = Tab(browser, viewport=SIZE)
        tab.page.goto(f"{platform.url}/docs#/{place}")
        return tab

    tab = opened(f"runs/{run_id}")
    tab.page.locator("figure img").wait_for()
    shoot(tab, "run")
    tab = opened("runs")
    tab.page.locator("tbody tr").nth(3).wait_for()
    shoot(tab, "runs")
    tab = opened("endpoints/local/studio")
    tab.page.get_by_role("button", name="Promote or roll back paint:prod").click()
    tab.page.locator(".changes li").first.wait_for()
    shoot(tab, "promote")
    shadow = "/v1/endpoints/local/studio/functions/chat/tags/prod/shadow"
    new = platform.http.get(shadow.replace("prod/shadow", "dev")).json()["release_id"]
    platform.http.put(shadow, json={"release_id": new, "percent": 100}).raise_for_status()

    def is_compared() -> bool:
        platform.http.post("/v1/local/studio/chat", json={"payload": {"prompt": "why do waves break?"}})
        return bool(platform.http.get(shadow).json()["compared"])

    until(is_compared, 60)
    tab = opened("endpoints/local/studio")
    tab.page.locator(".differs").first.wait_for()
    shoot(tab, "shadow")
    platform.http.delete(shadow)
    tab = opened("workers")
    tab.page.locator(".meter").first.wait_for()
    shoot(tab, "workers")
    tab = opened("run/local/studio/chat")
    for prompt in ("why do waves break?", "what is foam?"):
        tab.page.locator("[name=prompt]").fill(prompt)
        tab.page.locator("#run").click()
        tab.page.locator(".run[data-status=succeeded]").wait_for()
        tab.page.locator("#run:not([aria-disabled])").wait_for()
    tab.page.get_by_role("link", name="History").click()
    tab.page.locator(".cell").nth(1).wait_for()
    shoot(tab, "history")


def shoot(tab: Tab, name: str) -> None:
    path = OUT / f"{name}.png"
    tab.page.screenshot(path=path, animations="disabled")
    Image.open(path).convert("RGB").quantize(96).save(path, optimize=True)
    tab.close()


if __name__ == "__main__":
    main()
