"""`cozyctl import`: projects of cog, LitServe, BentoML and RunPod, whose functions then run here. None of these libraries is installed."""

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gen_worker.project.taking_over.found import TakeOverError

COG = {
    "cog.yaml": """
build:
  python_version: "3.11"
  gpu: true
  cuda: "12.4"
  system_packages: [ffmpeg]
  python_packages: ["cog>=0.9"]
  run: ["echo hi"]
predict: "predict.py:Predictor"
""",
    "helpers.py": "GREETING = open('greeting.txt').read().strip()\n",
    "greeting.txt": "Hello",
    "predict.py": """
from typing import List, Optional
from cog import BasePredictor, Input, Path, ConcatenateIterator
import helpers

class Predictor(BasePredictor):
    def setup(self) -> None:
        self.times = 1

    def predict(
        self,
        prompt: str = Input(description="Whom to greet", min_length=1),
        scale: float = Input(default=1.5, ge=0, le=10),
        style: str = Input(default="plain", choices=["plain", "loud"]),
        image: Optional[Path] = Input(default=None),
        seed: int = Input(default=None, description="Random seed"),
    ) -> Path:
        \"\"\"Write a greeting.\"\"\"
        text = f"{helpers.GREETING}, {prompt}{'!' if style == 'loud' else '.'} {scale} {seed}"
        if image is not None:
            text += image.read_text()
        out = Path("/tmp") / "greeting-of-a-test.txt"
        out.write_text(text)
        return out
""",
}
COG_STREAM = {
    "cog.yaml": "predict: predict.py:Predictor\n",
    "predict.py": """
from cog import BasePredictor, ConcatenateIterator
class Predictor(BasePredictor):
    async def setup(self):
        self.end = "."
    async def predict(self, prompt: str, words: list[str] = []) -> ConcatenateIterator[str]:
        for word in prompt.split() + words:
            yield word + self.end
""",
}
LITSERVE = {
    "requirements.txt": "litserve\n--extra-index-url https://example.org\n# comment\n",
    "app/server.py": """
import litserve as ls
import util

class Squares(ls.LitAPI):
    def setup(self, device):
        self.device = device
        self.model = util.square

    def decode_request(self, request):
        return request["input"] + request.get("plus", 0)

    def predict(self, x):
        return self.model(x)

    def encode_response(self, output):
        return {"output": output, "device": self.device}

server = ls.LitServer(Squares(max_batch_size=4), accelerator="auto", timeout=30, workers_per_device=2)
server.run(port=8000)
""",
    "app/util.py": "def square(x):\n    return x ** 2\n",
}
BENTOML = {
    "service.py": """
from __future__ import annotations
import typing as t
import bentoml
from pydantic import Field
from typing_extensions import Annotated

EXAMPLE = "a text"

@bentoml.service(resources={"cpu": "2"}, traffic={"timeout": 10})
class Texts:
    def __init__(self) -> None:
        self.ready = True

    @bentoml.api
    def shorten(self, text: str, words: Annotated[int, Field(ge=1)] = 2) -> str:
        return " ".join(text.split()[:words])

    @bentoml.api(batchable=True)
    def lengths(self, texts: t.List[str]) -> t.List[int]:
        return [len(text) for text in texts]

    @bentoml.api
    async def spell(self, word: str) -> t.AsyncGenerator[str, None]:
        for letter in word:
            yield letter
""",
}
RUNPOD = {
    "src/handler.py": """
import runpod

def handler(job):
    \"\"\"Repeat a word.\"\"\"
    job_input = job["input"]
    word = job_input["word"]
    times = job_input.get("times", 2)
    if times > 9:
        return {"error": "too many"}
    return {"text": word * times, "id": job["id"]}

runpod.serverless.start({"handler": handler})
""",
    "builder/requirements.txt": "runpod~=1.7\n",
}


# What newcomers bring: the forms in these tools' own examples that do not begin and end in one class.
LITSERVE_OF_SUBMODULES = {
    "server.py": """
import litserve as ls
from litserve.loggers import Logger
from pydantic import BaseModel

class Mine(Logger):
    pass

class API(ls.LitAPI):
    def predict(self, x):
        return {"class": x["class"], "tokens": x.get("max-tokens", 5)}
""",
}
BENTOML_WITH_AN_IMAGE = {
    "bentofile.yaml": "service: service:Texts\npython:\n  packages: [bentoml, scipy]\n",
    "service.py": """
import bentoml
from bentoml.validators import Shape

with bentoml.importing():
    import json

EXAMPLE = "a text"
my_image = bentoml.images.Image(python_version="3.13").system_packages("curl").python_packages("torch==2.13.0")

@bentoml.service(image=my_image)
class Texts:
    model_id = bentoml.models.HuggingFaceModel("org/tiny")

    @bentoml.api
    def name(self, text: str = EXAMPLE) -> str:
        return f"{text} {self.model_id}"
""",
}
RUNPOD_THAT_TESTS_KEYS = {
    "handler.py": """
import runpod
from runpod.serverless.utils import rp_cleanup
import runpod.serverless.modules.rp_logger as log

def handler(job):
    found = job["input"]
    return {"seen": "seed" in found, "seed": found["seed"] if "seed" in found else 0}

runpod.serverless.start({"handler": handler})
""",
}
COG_WITH_CONSTANTS = {
    "cog.yaml": "build:\n  python_version: '3.13'\npredict: predict.py:Predictor\n",
    "predict.py": """
from cog import BasePredictor, Input
import requests

STYLES = {"plain": str, "loud": str.upper}
DEFAULT = "plain"

class Predictor(BasePredictor):
    def predict(
        self,
        text: str,
        style: str = Input(default=DEFAULT, choices=STYLES.keys()),
        again: str = Input(default=DEFAULT, choices=sorted(STYLES)),
        size: int = Input(default=1, choices={2, 1}),
        scale: float = Input(default=0.5, choices=[0.5, 1.0]),
    ) -> str:
        return STYLES[style](text)
""",
}


COG_THAT_RETURNS_AN_OBJECT = {
    "cog.yaml": "predict: predict.py:Predictor\n",
    "predict.py": """
import tempfile
from typing import Optional
from cog import BaseModel, BasePredictor, Path

class Output(BaseModel):
    text: str
    file: Optional[Path] = None

class Predictor(BasePredictor):
    def predict(self, text: str) -> "Output":
        if text == "none":
            return Output(text=text)
        path = Path(tempfile.mkdtemp()) / "said.txt"
        path.write_text(text)
        return Output(text=text, file=path)
""",
}


def cozyctl(*arguments: str, cwd: Path) -> tuple[int, Any, str]:
    command = [sys.executable, "-c", "from gen_worker.cli.main import main; main()", *arguments, "--json"]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120, check=False)
    return done.returncode, json.loads(done.stdout) if done.stdout.strip() else None, done.stderr


def taken_over(library: str, files: dict[str, str], tmp_path: Path) -> tuple[Path, Any]:
    """The written project, which passes `cozyctl check`."""
    theirs = tmp_path / "theirs"
    for name, text in files.items():
        (theirs / name).parent.mkdir(parents=True, exist_ok=True)
        (theirs / name).write_text(text)
    before = {path: path.read_bytes() for path in theirs.rglob("*") if path.is_file()}
    status, said, err = cozyctl("import", library, "theirs", "ours", cwd=tmp_path)
    assert status == 0, (said, err)
    assert {path: path.read_bytes() for path in theirs.rglob("*") if path.is_file()} == before
    status, checked, err = cozyctl("check", cwd=tmp_path / "ours")
    assert status == 0, (checked, err)
    return tmp_path / "ours", said


def output_of(folder: Path, function: str, payload: object) -> Any:
    status, said, err = cozyctl("run", function, "--payload", json.dumps(payload), cwd=folder)
    assert status == 0, (said, err)
    return said["output"] if said["output"] is not None else said["outputs"]


def test_cog(tmp_path: Path) -> None:
    folder, said = taken_over("cog", COG, tmp_path)
    status, run, err = cozyctl("run", "predict", "-i", "prompt=you", "-i", "style=loud", "-i", "image=@greeting.txt", cwd=folder)
    assert status == 0, (run, err)
    assert (folder / "outputs" / run["output"]["output"]["ref"]).read_text() == "Hello, you! 1.5 NoneHello"
    assert cozyctl("run", "predict", "-i", "prompt=you", "-i", "scale=11", cwd=folder)[1]["code"] == "validation"
    _, manifest, _ = cozyctl("discover", cwd=folder)
    assert "Whom to greet" in json.dumps(manifest)
    assert "apt-get install -y --no-install-recommends ffmpeg" in (folder / "Dockerfile").read_text()
    assert "cog" not in (folder / "pyproject.toml").read_text()
    assert any("build.run" in note for note in said["not_taken_over"])


def test_cog_that_streams(tmp_path: Path) -> None:
    folder, _ = taken_over("cog", COG_STREAM, tmp_path)
    assert output_of(folder, "predict", {"prompt": "a b", "words": ["c"]}) == [{"chunk": "a."}, {"chunk": "b."}, {"chunk": "c."}]


def test_litserve(tmp_path: Path) -> None:
    folder, said = taken_over("litserve", LITSERVE, tmp_path)
    assert output_of(folder, "predict", {"input": 3, "plus": 1})["output"] == {"output": 16, "device": "cpu"}
    assert "timeout_s = 30" in (folder / "cozy.toml").read_text()
    notes = " ".join(said["not_taken_over"])
    assert all(each in notes for each in ("batches of 4", "workers_per_device", "--extra-index-url"))


def test_bentoml(tmp_path: Path) -> None:
    pytest.importorskip("pydantic")
    folder, said = taken_over("bentoml", BENTOML, tmp_path)
    assert output_of(folder, "shorten", {"text": "one two three"}) == {"output": "one two"}
    assert output_of(folder, "lengths", {"texts": ["a", "bb"]}) == {"output": [1, 2]}
    assert output_of(folder, "spell", {"word": "ab"}) == [{"chunk": "a"}, {"chunk": "b"}]
    assert cozyctl("run", "shorten", "--payload", '{"text": "a", "words": 0}', cwd=folder)[1]["code"] == "validation"
    assert any("lengths: batches" in note for note in said["not_taken_over"])


def test_runpod(tmp_path: Path) -> None:
    folder, _ = taken_over("runpod", RUNPOD, tmp_path)
    assert output_of(folder, "handler", {"word": "ab"})["output"]["text"] == "abab"
    status, run, _ = cozyctl("run", "handler", "-i", "word=ab", "-i", "times=10", cwd=folder)
    assert status == 1
    assert run["code"] == "fatal"
    assert "too many" in json.dumps(run)


def test_litserve_with_submodules_and_keys_that_are_no_names(tmp_path: Path) -> None:
    pytest.importorskip("pydantic")
    folder, said = taken_over("litserve", LITSERVE_OF_SUBMODULES, tmp_path)
    assert output_of(folder, "predict", {"class": "a"})["output"] == {"class": "a", "tokens": 5}
    assert '"pydantic"' in (folder / "pyproject.toml").read_text()  # which litserve brought along
    assert any("litserve.loggers" in note for note in said["not_taken_over"])


def test_bentoml_with_an_image_and_a_model(tmp_path: Path) -> None:
    folder, said = taken_over("bentoml", BENTOML_WITH_AN_IMAGE, tmp_path)
    assert output_of(folder, "name", {}) == {"output": "a text org/tiny"}
    project, image = (folder / "pyproject.toml").read_text(), (folder / "Dockerfile").read_text()
    assert '"torch==2.13.0"' in project
    assert '"scipy"' in project
    assert "bentoml" not in project
    assert "apt-get install -y --no-install-recommends curl" in image
    assert ":python3.13-" in image
    assert any("org/tiny" in note for note in said["not_taken_over"])


def test_runpod_with_a_key_that_may_be_absent(tmp_path: Path) -> None:
    folder, _ = taken_over("runpod", RUNPOD_THAT_TESTS_KEYS, tmp_path)
    assert output_of(folder, "handler", {})["output"] == {"seen": False, "seed": 0}
    assert output_of(folder, "handler", {"seed": 7})["output"] == {"seen": True, "seed": 7}


def test_cog_that_returns_an_object(tmp_path: Path) -> None:
    folder, said = taken_over("cog", COG_THAT_RETURNS_AN_OBJECT, tmp_path)
    output = output_of(folder, "predict", {"text": "a kite"})
    assert (output["text"], (folder / "outputs" / output["file"]["ref"]).read_text()) == ("a kite", "a kite")
    assert output_of(folder, "predict", {"text": "none"}) == {"text": "none", "file": None}
    assert said["not_taken_over"] == []


def test_cog_with_constants_in_its_signature(tmp_path: Path) -> None:
    folder, said = taken_over("cog", COG_WITH_CONSTANTS, tmp_path)
    written = (folder / "src/ours/main.py").read_text()
    assert "style: Literal['plain', 'loud'] = 'plain'" in written
    assert "again: Literal['loud', 'plain'] = 'plain'" in written
    assert "size: Literal[1, 2] = 1" in written
    assert ":python3.13-" in (folder / "Dockerfile").read_text()
    assert '"requests"' in (folder / "pyproject.toml").read_text()
    assert said["not_taken_over"] == ["predict.py: predict: the choices of scale, [0.5, 1.0], are no longer checked"]


@pytest.mark.parametrize(
    ("library", "files", "expected"),
    [
        ("cog", {"x.py": ""}, "there is no cog.yaml"),
        ("cog", {"cog.yaml": "predict: [a"}, "cog.yaml cannot be read"),
        ("cog", {"cog.yaml": "build: {}"}, "has no line such as predict"),
        ("cog", {"cog.yaml": "predict: p.py:P", "p.py": "def ("}, "p.py cannot be read"),
        ("cog", {"cog.yaml": "predict: p.py:P", "p.py": "class Q: ..."}, "has no class P"),
        ("litserve", {"x.py": "class A: ..."}, "class MyAPI(litserve.LitAPI)"),
        ("bentoml", {"x.py": "raise SystemExit"}, "@bentoml.service"),
        ("runpod", {"x.py": "import runpod"}, "runpod.serverless.start"),
    ],
)
def test_what_is_none_says_what_was_looked_for(library: str, files: dict[str, str], expected: str, tmp_path: Path) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(TakeOverError, match=re.escape(expected)):
        importlib.import_module(f"gen_worker.project.taking_over.{library}").read(tmp_path)


def test_a_mistyped_library_is_named(tmp_path: Path) -> None:
    status, said, err = cozyctl("import", "litserv", ".", cwd=tmp_path)
    assert status == 2
    assert "Did you mean 'litserve'?" in said["error"]
    assert "Did you mean 'litserve'?" in err
