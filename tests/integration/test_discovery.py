"""Discovery as a process: the manifest, byte-stable, and every mistake with file, line, function and fix."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

IO = """
class In(msgspec.Struct):
    prompt: str
    model: str = "a"

class Out(msgspec.Struct):
    text: str

"""
FUNCTION = IO + "@worker_function()\ndef make_it(ctx: ActionContext, payload: In) -> Out:\n    return Out('x')\n"


def discover(folder: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "gen_worker.discover", *flags], cwd=folder, capture_output=True, text=True, check=False)


def manifest(folder: Path) -> dict:
    found = discover(folder)
    assert found.returncode == 0, found.stderr
    return json.loads(found.stdout)


def test_a_function_entry_as_in_the_contract(project: Callable[..., Path]) -> None:
    folder = project(
        IO
        + """
class Pipe:
    @classmethod
    def from_pretrained(cls, path): ...

@worker_function(ResourceRequirements(max_concurrency=2))
def paint_cat(ctx: ActionContext, pipe: Annotated[Pipe, ModelRef(ModelRefSource.PAYLOAD, "model")],
              other: Annotated[Pipe, ModelRef(ModelRefSource.FIXED, "small")], payload: In) -> Out: ...

@worker_function
def words(ctx: ActionContext, payload: In) -> Iterator[Out]:
    yield Out("x")

@worker_websocket()
async def talk(ctx: ActionContext, sock: RealtimeSocket) -> None: ...
""",
        '[models]\nsmall = "hf:demo/small"\n[resources]\nvram_gb = 8\n',
        name="Tiny Demo",
    )
    found = manifest(folder)
    assert found["endpoint_name"] == "tiny-demo"
    assert found["resources"] == {"vram_gb": 8}
    assert found["models_by_function"]["paint-cat"] == {"small": {"ref": "hf:demo/small", "dtypes": ["fp16", "bf16"]}}
    paint, words = found["functions"]
    assert (paint["name"], paint["python_name"], paint["resources"]) == ("paint-cat", "paint_cat", {"max_concurrency": 2})
    assert paint["required_models"] == ["small"]
    assert paint["payload_repo_selectors"] == [{"field": "model", "kind": "short_key"}]
    assert paint["injection_json"][0]["model_ref"] == {"source": "payload", "key": "model", "ref": "", "dtypes": []}
    assert paint["input_schema"]["$ref"] == "#/$defs/In"
    assert paint["input_schema"]["$defs"]["In"]["properties"]["model"]["enum"] == ["small"]
    assert "enum" not in words["input_schema"]["$defs"]["In"]["properties"]["model"]
    assert paint["output_mode"] == "single"
    assert "delta_type" not in paint
    assert (words["output_mode"], words["incremental_output"]) == ("incremental", True)
    assert words["delta_type"] == words["output_type"]
    assert len(words["delta_schema_sha256"]) == 64
    assert [socket["name"] for socket in found["websockets"]] == ["talk"]


def test_baking_twice_gives_the_same_bytes_and_prints_stay_off_stdout(project: Callable[..., Path]) -> None:
    folder = project("print('hello from the module'); os.write(1, b'raw\\n'); os.system('echo child')\n" + FUNCTION)
    one, two = discover(folder), discover(folder)
    assert one.stdout == two.stdout
    assert json.loads(one.stdout)["functions"][0]["name"] == "make-it"
    assert "hello from the module" in one.stderr
    assert "raw" in one.stderr


BAD = {
    "one parameter": ("def f(ctx: ActionContext) -> Out: ...", "must accept (ctx, payload, ...)"),
    "no context": ("def f(payload: In, ctx: ActionContext) -> Out: ...", "first param must be ctx"),
    "no annotation": ("def f(ctx: ActionContext, payload) -> Out: ...", "missing type annotation for param 'payload'"),
    "no payload": (
        "def f(ctx: ActionContext, m: Annotated[Path, ModelRef(ModelRefSource.FIXED, 'small')]) -> Out: ...",
        "missing payload param",
    ),
    "two payloads": ("def f(ctx: ActionContext, a: In, b: In) -> Out: ...", "must accept exactly one payload, found a, b"),
    "odd parameter": ("def f(ctx: ActionContext, a: In, n: int) -> Out: ...", "unsupported param type for 'n': int"),
    "star args": ("def f(ctx: ActionContext, a: In, *more: int) -> Out: ...", "unsupported param '*more: int'"),
    "no return": ("def f(ctx: ActionContext, a: In): ...", "missing return type annotation"),
    "dict return": ("def f(ctx: ActionContext, a: In) -> dict: ...", "return type must be a Struct or a stream of Structs, not dict"),
    "optional return": ("def f(ctx: ActionContext, a: In) -> Out | None: ...", "return type must be"),
    "stream of str": ("def f(ctx: ActionContext, a: In) -> Iterator[str]: ...", "incremental output return must be a stream of one Struct"),
    "yields a struct": ("def f(ctx: ActionContext, a: In) -> Out:\n    yield Out('x')", "write -> Iterator[Out]"),
    "async iterator": ("async def f(ctx: ActionContext, a: In) -> Iterator[Out]: ...", "write -> AsyncIterator[Out]"),
    "unknown name": ("def f(ctx: ActionContext, a: 'Inn') -> Out: ...", "an annotation cannot be read: name 'Inn' is not defined"),
    "unknown key": (
        "def f(ctx: ActionContext, a: In, m: Annotated[Path, ModelRef(ModelRefSource.FIXED, 'smal')]) -> Out: ...",
        "which cozy.toml does not declare. Did you mean 'small'? Declared keys: small",
    ),
    "inline ref": (
        "def f(ctx: ActionContext, a: In, m: Annotated[Path, ModelRef(ModelRefSource.FIXED, 'hf:o/r')]) -> Out: ...",
        "has the ref 'hf:o/r'; expected a key",
    ),
    "unknown selector": (
        "def f(ctx: ActionContext, a: In, m: Annotated[Path, ModelRef(ModelRefSource.PAYLOAD, 'modle')]) -> Out: ...",
        "'modle', which In does not have. Did you mean 'model'?",
    ),
    "bad ref in the signature": (
        "def f(ctx: ActionContext, a: In, m: Annotated[Path, ModelRef(ModelRefSource.FIXED, 'x', ref='nonsense')]) -> Out: ...",
        "cannot read model ref 'nonsense'",
    ),
    "payload that is no JSON": (
        "def f(ctx: ActionContext, a: Odd) -> Out: ...",
        "Odd, Out cannot be described",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_mistakes_show_file_line_function_problem_and_fix(project: Callable[..., Path], case: str) -> None:
    text, message = BAD[case]
    folder = project(
        IO + "class Odd(msgspec.Struct):\n    x: os.PathLike\n\n@worker_function()\n" + text + "\n", '[models]\nsmall = "hf:demo/small"\n'
    )
    found = discover(folder)
    if case == "payload that is no JSON":
        message = "cannot be described"
    assert found.returncode == 1
    assert found.stdout == ""
    assert message in found.stderr
    assert "main.py:" in found.stderr
    assert "function 'f'" in found.stderr
    assert "fix: " in found.stderr


def test_all_mistakes_are_shown_together_with_collisions(project: Callable[..., Path]) -> None:
    text = "@worker_function\ndef f_a(ctx: ActionContext, a: In) -> Out: ...\n@worker_function\ndef f__a(ctx: ActionContext, a: In) -> Out: ...\n"
    found = discover(project(IO + text + "@worker_function\ndef g(ctx): ...\n"))
    assert "multiple functions normalize to the same function name 'f-a': 'f_a'" in found.stderr
    assert "function 'g'" in found.stderr


def test_websocket_rules(project: Callable[..., Path]) -> None:
    found = discover(project("@worker_websocket\ndef talk(ctx: ActionContext, sock: RealtimeSocket) -> None: ...\n"))
    assert "a websocket handler must be async" in found.stderr


def test_string_annotations(project: Callable[..., Path], tmp_path: Path) -> None:
    folder = project(FUNCTION)
    main = next(folder.rglob("main.py"))
    main.write_text("from __future__ import annotations\n" + main.read_text())
    assert manifest(folder)["functions"][0]["payload_type"]["qualname"] == "In"


def test_a_function_found_through_two_modules_counts_once(project: Callable[..., Path]) -> None:
    folder = project("from .other import make_it\n")
    main = next(folder.rglob("main.py"))
    main.with_name("other.py").write_text(main.read_text().replace("from .other import make_it", "") + FUNCTION)
    assert len(manifest(folder)["functions"]) == 1


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("raise RuntimeError('at import')", "failed: RuntimeError: at import"),
        ("sys.exit(3)", "failed: SystemExit: 3"),
        ("import not_there_at_all", "needs the package 'not_there_at_all'"),
        ("def broken(:", "failed: SyntaxError"),
        ("x = 1", "no function marked with @worker_function()"),
    ],
)
def test_modules_that_cannot_be_used(project: Callable[..., Path], code: str, message: str) -> None:
    found = discover(project(code + "\n"))
    assert found.returncode == 1
    assert message in found.stderr
    assert "Traceback" not in found.stderr


def test_a_main_that_does_not_exist(project: Callable[..., Path]) -> None:
    folder = project(FUNCTION)
    text = (folder / "cozy.toml").read_text()
    (folder / "cozy.toml").write_text(text.replace('main = "', 'main = "no_such_'))
    assert "no module 'no_such_" in discover(folder).stderr


STAND_IN = (
    IO
    + """
import heavy_nn as hn
from heavy_nn.pipes import Pipeline
from heavy_nn import Device

class Net(hn.Module):
    @hn.inference_mode()
    def forward(self, x: hn.Tensor) -> "hn.Tensor": ...

@worker_function()
def draw(ctx: ActionContext, pipe: Annotated[Pipeline, ModelRef(ModelRefSource.FIXED, "small")], payload: In) -> Out:
    return Out(str(hn.device("cpu")))
"""
)
PYPROJECT = '[project]\nname = "demo"\nversion = "1"\ndependencies = ["heavy-nn>=2", "msgspec"]\n'


def test_declared_packages_that_are_missing_are_stood_in_for(project: Callable[..., Path]) -> None:
    folder = project(STAND_IN, '[models]\nsmall = "hf:demo/small"\n')
    (folder / "pyproject.toml").write_text(PYPROJECT)
    found = discover(folder)
    assert found.returncode == 0, found.stderr
    assert "'heavy_nn' is not installed here" in found.stderr
    assert json.loads(found.stdout)["functions"][0]["injection_json"][0]["type"] == "heavy_nn.pipes.Pipeline"


def test_a_real_use_at_import_is_told(project: Callable[..., Path]) -> None:
    folder = project(STAND_IN + "DEVICE = hn.device('cuda')\n", '[models]\nsmall = "hf:demo/small"\n')
    (folder / "pyproject.toml").write_text(PYPROJECT)
    found = discover(folder)
    assert found.returncode == 1
    assert "calls heavy_nn.device(...) while the module is imported" in found.stderr
    assert "main.py:" in found.stderr


def test_undeclared_packages_are_not_stood_in_for(project: Callable[..., Path]) -> None:
    assert "needs the package 'heavy_nn'" in discover(project(STAND_IN)).stderr


def test_a_build_may_ask_for_a_fitting_version(project: Callable[..., Path]) -> None:
    folder = project("class In(msgspec.Struct): ...\n\n@worker_function\ndef f(ctx: ActionContext, payload: In) -> In: ...\n")
    assert discover(folder, "--check-version").returncode == 0
    toml = folder / "cozy.toml"
    toml.write_text(toml.read_text().replace(">=0.2.0,<0.3.0", ">=9"))
    assert discover(folder).returncode == 0, "what is installed where the manifest is made says nothing of the worker"
    found = discover(folder, "--check-version")
    assert (found.returncode, found.stdout) == (1, "")
    assert "does not satisfy gen_worker = '>=9'" in found.stderr
