"""Every example, run as its README says; a classifier checks pictures, and texts are compared."""

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.conftest import EXAMPLES, Runner

MODELS = EXAMPLES / "models"
WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


def test_hello(start_runner: Callable[..., Runner]) -> None:
    runner = start_runner(EXAMPLES / "hello")
    assert runner.run("generate", {"prompt": "kite"}).json()["output"] == {"text": "Hello, kite!"}
    assert runner.run("generate", {"prompt": " "}).json()["safe_message"] == "prompt is empty; expected a name"


def test_stream(start_runner: Callable[..., Runner]) -> None:
    runner = start_runner(EXAMPLES / "stream")
    assert [json.loads(line)["data"] for line in ndjson(runner, "words", {"prompt": "a red kite"})] == [
        {"chunk": word} for word in ("a ", "red ", "kite ")
    ]
    assert len(ndjson(runner, "countdown", {"start": 99, "seconds_between": 0})) == 61  # clamped to 60
    assert runner.http.get("/openapi.json").json()["components"]["schemas"]["Countdown"]["properties"]["start"]["maximum"] == 60


def ndjson(runner: Runner, function: str, payload: dict) -> list[str]:
    response = runner.http.post(f"/v1/run/{function}", json=payload, headers={"accept": "application/x-ndjson"})
    return [line for line in response.text.splitlines() if json.loads(line)["event"] == "output"]


@pytest.fixture(scope="module")
def classifier() -> Callable[[bytes], int]:
    """A support vector machine on scikit-learn's real digits: picture to digit."""
    pytest.importorskip("torch")
    pytest.importorskip("diffusers")
    datasets, svm = pytest.importorskip("sklearn.datasets"), pytest.importorskip("sklearn.svm")
    from PIL import Image

    pixels, labels = datasets.load_digits(return_X_y=True)
    model = svm.SVC(gamma=0.001, C=10).fit(pixels, labels)

    def classify(png: bytes) -> int:
        small = Image.open(io.BytesIO(png)).convert("L").resize((8, 8), Image.Resampling.BOX)
        return int(model.predict([[value / 255 * 16 for value in small.get_flattened_data()]])[0])

    return classify


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    pytest.importorskip("torch")
    pytest.importorskip("diffusers")
    found = Runner(EXAMPLES / "digits", tmp_path_factory.mktemp("digits") / "o", "--model", f"digits={MODELS / 'digits-sd'}")
    yield found
    found.stop()


@pytest.mark.torch
def test_digits_draws_what_is_asked(digits: Runner, classifier: Callable[[bytes], int]) -> None:
    drawn = {}
    for word in WORDS:
        answer = digits.run("generate", {"prompt": word, "size": 16}).json()
        assert answer["success"], answer
        drawn[word] = classifier(Path(answer["files"][0]["local_path"]).read_bytes())
        progress = [event["payload"]["progress"] for event in answer["events"] if event["event_type"] == "job.progress"]
        assert progress[-1] == 1.0
        assert len(progress) == 20
    right = sum(WORDS[digit] == word for word, digit in drawn.items())
    assert right >= 9, drawn


@pytest.mark.torch
def test_digits_drawn_at_the_same_time_are_those_drawn_one_by_one(digits: Runner) -> None:
    from concurrent.futures import ThreadPoolExecutor

    def draw(seed: int) -> str:
        return digits.run("generate", {"prompt": WORDS[seed], "seed": seed}).json()["files"][0]["sha256"]

    alone = [draw(seed) for seed in range(4)]
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(draw, range(4))) == alone


@pytest.mark.torch
def test_a_drawing_is_canceled_between_steps(digits: Runner) -> None:
    body = {"prompt": "seven", "num_inference_steps": 50, "size": 512}
    location = digits.http.post("/v1/run/generate", json=body, headers={"prefer": "respond-async"}).headers["location"]
    digits.until(lambda: "progress" in digits.http.get(location).json())
    assert digits.http.post(location + "/cancel").json()["status"] == "canceled"
    digits.until(lambda: not digits.http.get("/v1/status").json()["threads_left"])


@pytest.mark.torch
def test_digits_variants_share_vae_and_text_encoder(start_runner: Callable[..., Runner], classifier: Callable[[bytes], int]) -> None:
    for shared in ("vae/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors", "tokenizer/tokenizer.json"):
        assert (MODELS / "digits-sd" / shared).read_bytes() == (MODELS / "digits-sd-slanted" / shared).read_bytes()
    runner = start_runner(
        EXAMPLES / "digits-variants", "--model", f"upright={MODELS / 'digits-sd'}", "--model", f"slanted={MODELS / 'digits-sd-slanted'}"
    )
    pictures = {}
    for model in ("upright", "slanted"):
        right = 0
        for digit, word in enumerate(WORDS):
            answer = runner.run("draw", {"prompt": word, "model": model, "seed": 1}).json()
            pictures[model, word] = Path(answer["files"][0]["local_path"]).read_bytes()
            right += classifier(pictures[model, word]) == digit
        assert right >= 9, model
    assert pictures["upright", "seven"] != pictures["slanted", "seven"]
    assert "Did you mean 'slanted'?" in runner.run("draw", {"prompt": "one", "model": "slanded"}).json()["safe_message"]


def test_read_image(start_runner: Callable[..., Runner]) -> None:
    pytest.importorskip("onnxruntime")
    pillow = pytest.importorskip("PIL.Image")
    import importlib.util

    if importlib.util.find_spec("rapidocr_onnxruntime") is None:
        pytest.skip("the package rapidocr-onnxruntime, which ships the model, is not installed")
    from PIL import ImageDraw, ImageFont

    image = pillow.new("RGB", (640, 200), "white")
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(size=48)
    draw.text((20, 20), "Invoice 2026-0042", font=font, fill="black")
    draw.text((20, 110), "Total 99.50", font=font, fill="black")
    png = io.BytesIO()
    image.save(png, "PNG")
    runner = start_runner(EXAMPLES / "read-image", "--model", "ocr=pkg:rapidocr_onnxruntime/models")
    answer = runner.http.post("/v1/run/read", files={"image": ("invoice.png", png.getvalue())}).json()
    assert [line["text"].replace(" ", "") for line in answer["output"]["lines"]] == ["Invoice2026-0042", "Total99.50"]
    for wrong, reason in (
        (b"no picture", "image is text/plain of 10 bytes, not a picture that can be read; send a PNG or JPEG"),
        (b"", "of 0 bytes, not a picture that can be read"),
        (png.getvalue()[:-900], "and damaged: "),
    ):
        refused = runner.http.post("/v1/run/read", files={"image": ("x.txt", wrong)})
        assert refused.status_code == 400
        assert reason in refused.json()["safe_message"]
    # Black on nothing.
    clear = io.BytesIO()
    alpha = pillow.eval(image.convert("L"), lambda value: 255 - value)
    black = pillow.new("RGBA", image.size, "black")
    black.putalpha(alpha)
    black.save(clear, "PNG")
    answer = runner.http.post("/v1/run/read", files={"image": ("clear.png", clear.getvalue())}).json()
    assert [line["text"].replace(" ", "") for line in answer["output"]["lines"]] == ["Invoice2026-0042", "Total99.50"]
