"""Errors at import: the author's own line, and the fix for this cause."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

STRUCTS = """
class In(msgspec.Struct):
    prompt: str

class Out(msgspec.Struct):
    text: str

"""
FUNCTION = "@worker_function()\ndef make_it(ctx: ActionContext, payload: In) -> Out: ...\n"
SHAPE = "    import msgspec\n    class {}(msgspec.Struct):\n"

# case: (the module's last lines, the line that is shown, the parts of the message)
CASES = {
    "no colon": ("def f()\n", "def f()\n           ^", ("SyntaxError: expected ':'", "fix: correct the syntax")),
    "never closed": ("x = (1,\n", "x = (1,\n        ^", ("'(' was never closed",)),
    "indented": ("if True:\nx = 1\n", "x = 1", ("IndentationError", "fix: correct the indentation")),
    "a name of ours": (
        "from gen_worker import ActionContex\n",
        "from gen_worker import ActionContex",
        ("Did you mean 'ActionContext'?", "fix: from gen_worker import ActionContext"),
    ),
    "a module of ours": (
        "from gen_worker.error import ValidationError\n",
        "from gen_worker.error import ValidationError",
        ("Did you mean 'errors'?", "fix: from gen_worker.errors import ValidationError"),
    ),
    "a package": ("import genworker\n", "import genworker", ("Did you mean 'gen_worker'?",)),
    "an attribute": ("gen_worker.worker_functoin\n", "gen_worker.worker_functoin", ("Did you mean 'worker_function'?",)),
    "a name": ("Inn\n", "Inn", ("Did you mean 'In'?",)),
    "a module that is not imported": ("json.dumps({})\n", "json.dumps({})", ("fix: import json",)),
    "an argument": (
        "worker_function(bach=3)\n",
        "worker_function(bach=3)",
        ("Did you mean 'batch'?", "worker_function takes: resources, batch"),
    ),
    "a setting as an argument": (
        "worker_function(timeout_s=3)\n",
        "worker_function(timeout_s=3)",
        ("write timeout_s = ... under [functions.NAME] in cozy.toml",),
    ),
    "a resource as an argument": ("ResourceRequirements(vram_gb=8)\n", "vram_gb=8", ("vram_gb = ... under [resources] in cozy.toml",)),
    "an argument of a Struct": (
        "worker_function(batch=Batch(size=8))\n",
        "Batch(size=8)",
        ("Did you mean 'max_size'?", "Batch takes: max_size"),
    ),
    "a mutable default": (
        "class Odd(msgspec.Struct):\n    tags: list[str] = ['a']\n",
        "class Odd(msgspec.Struct):",
        ("msgspec.field(default_factory=lambda: [...])",),
    ),
    "a mutable default of a dataclass": (
        "import dataclasses\n@dataclasses.dataclass\nclass Odd:\n    tags: list = []\n",
        "@dataclasses.dataclass",
        ("default_factory",),
    ),
    "fields out of order": ("class Odd(msgspec.Struct):\n    a: int = 1\n    b: int\n", "class Odd", ("kw_only=True",)),
    "the environment": (
        "KEY = os.environ['NO_SUCH_KEY']\n",
        "KEY = os.environ['NO_SUCH_KEY']",
        ('cozy.toml: [env] NO_SUCH_KEY = "..."', "NO_SUCH_KEY=... cozyctl"),
    ),
    "a file": ("open('weights.bin')\n", "open('weights.bin')", ("Path(__file__).parent / 'weights.bin'",)),
    "sys.exit": ("sys.exit('not today')\n", "sys.exit('not today')", ("SystemExit: not today", "if __name__ == '__main__':")),
    "os._exit": ("os._exit(0)\n", "os._exit(0)", ("it calls os._exit(0)",)),
    "os._exit that is caught": ("try:\n    os._exit(0)\nexcept Exception: pass\n", "os._exit(0)", ("it calls os._exit(0)",)),
    "deep in a library": (
        "import json\nCONFIG = json.loads('{')\n",
        "CONFIG = json.loads('{')",
        ("JSONDecodeError", "move that into the function"),
    ),
    "a class": ("@worker_function()\nclass Odd: ...\n", "@worker_function()", ("marks a plain function, not the class Odd",)),
}


def discover(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "gen_worker.discover"], cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("case", CASES)
def test_the_authors_line_and_the_fix_of_the_cause(project: Callable[..., Path], case: str) -> None:
    code, line, parts = CASES[case]
    folder = project("import gen_worker\n" + STRUCTS + FUNCTION + code)
    main = next(folder.rglob("main.py"))
    found = discover(folder)
    assert (found.returncode, found.stdout) == (1, "")
    place, _, rest = found.stderr.removeprefix("error: ").partition(": importing")
    name, _, number = place.partition(":")
    assert folder / name == main
    assert line.split("\n")[0].strip() in main.read_text().splitlines()[int(number) - 1]
    assert line in found.stderr
    for part in (*parts, "fix: "):
        assert part in rest
    assert "Traceback" not in rest


def test_a_package_that_the_project_declares_is_not_taken_for_a_misspelt_one(project: Callable[..., Path]) -> None:
    folder = project("import msgspek\nmsgspek.x\n")
    assert "Did you mean 'msgspec'?" in discover(folder).stderr
    command = [sys.executable, "-c", "from gen_worker.cli.main import main; main()", "run", "f", "--folder", str(folder)]
    (folder / "pyproject.toml").write_text('[project]\nname = "demo"\nversion = "0"\ndependencies = ["msgspek"]\n')
    declared = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False).stderr
    assert "needs the package 'msgspek', which is not installed\n" in declared, declared
    assert "pip install msgspek" in declared


PAYLOADS = {
    "pydantic-like": (
        "class Odd:\n    model_fields = {}\n    prompt: str\n    steps: int\n",
        "payload: Odd",
        "Odd",
        ("prompt: str", "steps: int"),
    ),
    "dataclass": (
        "import dataclasses\n@dataclasses.dataclass\nclass Odd:\n    prompt: str\n    steps: int = 3\n",
        "payload: Odd",
        "Odd",
        ("prompt: str", "steps: int = 3"),
    ),
    "typed dict": ("from typing import TypedDict\nclass Odd(TypedDict):\n    prompt: str\n", "payload: Odd", "Odd", ("prompt: str",)),
    "named tuple": ("from typing import NamedTuple\nclass Odd(NamedTuple):\n    prompt: str\n", "payload: Odd", "Odd", ("prompt: str",)),
    "dict": ("", "payload: dict", "Input", ("prompt: str",)),
    "dict of str": ("", "payload: dict[str, str]", "Input", ("prompt: str",)),
    "str": ("", "prompt: str", "Input", ("prompt: str",)),
    "list": ("", "images: list[bytes]", "Input", ("images: list[bytes]",)),
    "several": ("", "prompt: str, steps: int = 3", "Input", ("prompt: str", "steps: int = 3")),
    "nothing": ("", "payload", "Input", ("prompt: str",)),
}


@pytest.mark.parametrize("case", PAYLOADS)
def test_a_payload_that_is_no_struct_shows_the_struct(project: Callable[..., Path], case: str) -> None:
    before, parameters, name, fields = PAYLOADS[case]
    folder = project(STRUCTS + before + f"@worker_function()\ndef f(ctx: ActionContext, {parameters}) -> Out: ...\n")
    found = discover(folder)
    assert found.returncode == 1
    assert SHAPE.format(name) + "".join(f"        {field}\n" for field in fields) in found.stderr


@pytest.mark.parametrize(
    ("output", "name", "field"),
    [("str", "Output", "text: str"), ("dict[str, int]", "Output", "text: str"), ("Iterator[str]", "Delta", "chunk: str")],
)
def test_an_output_that_is_no_struct_shows_the_struct(project: Callable[..., Path], output: str, name: str, field: str) -> None:
    found = discover(project(STRUCTS + f"@worker_function()\ndef f(ctx: ActionContext, payload: In) -> {output}: ...\n"))
    assert SHAPE.format(name) + f"        {field}\n" in found.stderr


@pytest.mark.parametrize(
    ("code", "how"),
    [
        ("import ctypes; ctypes.CDLL(None)._exit(0)", "ended with status 0"),
        ("os.execv('/bin/true', ['true'])", "ended with status 0"),
        ("os.kill(os.getpid(), 9)", "was ended by SIGKILL"),
    ],
)
def test_an_end_that_nobody_can_catch_is_named(project: Callable[..., Path], code: str, how: str) -> None:
    folder = project(STRUCTS + FUNCTION + code + "\n")
    found = discover(folder)
    assert (found.returncode, found.stdout) == (1, "")
    assert f"the process {how} while it imported" in found.stderr


def test_a_child_of_the_module_may_end_as_it_likes(project: Callable[..., Path]) -> None:
    found = discover(project(STRUCTS + FUNCTION + "if os.fork() == 0:\n    os._exit(0)\nassert os.wait()[1] == 0\n"))
    assert found.returncode == 0, found.stderr


def test_a_circle_of_imports(project: Callable[..., Path]) -> None:
    folder = project(STRUCTS + "from .other import thing\n" + FUNCTION)
    main = next(folder.rglob("main.py"))
    main.with_name("other.py").write_text(f"from {main.parent.name}.main import make_it\n")
    found = discover(folder)
    assert "other.py:1: " in found.stderr
    assert "fix: two modules import each other" in found.stderr


def test_a_module_of_the_project_that_is_misspelt(project: Callable[..., Path]) -> None:
    folder = project(STRUCTS + "from .helper import thing\n" + FUNCTION)
    main = next(folder.rglob("main.py"))
    main.with_name("helpers.py").write_text("thing = 1\n")
    assert "Did you mean 'helpers'?\n    from .helper import thing\n  fix: from .helpers import thing\n" in discover(folder).stderr


def test_a_main_that_is_not_there_is_a_line_of_cozy_toml(project: Callable[..., Path]) -> None:
    folder = project(STRUCTS + FUNCTION)
    cozy = folder / "cozy.toml"
    cozy.write_text(cozy.read_text().replace(".main", ".mian"))
    found = discover(folder).stderr
    assert "cozy.toml:3: main = " in found
    assert ".main'?\n    main = " in found
    assert "importlib" not in found


def test_a_package_whose_distribution_has_another_name(project: Callable[..., Path]) -> None:
    folder = project("import ponies\n")
    (folder / "pyproject.toml").write_text('[project]\nname = "demo"\nversion = "0"\ndependencies = ["Ponies_TTS>=1"]\n')
    command = [sys.executable, "-c", "from gen_worker.cli.main import main; main()", "run", "f", "--folder", str(folder)]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "uv add ponies-tts, or pip install ponies-tts" in found.stderr


def test_a_package_that_is_not_installed_is_not_taken_for_one_that_is_a_bit_alike(project: Callable[..., Path]) -> None:
    assert "Did you mean" not in discover(project("import pydrac\n")).stderr  # pydoc
