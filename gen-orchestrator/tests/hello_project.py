"""A project of one function, to publish."""

from pathlib import Path

HELLO = """\
import msgspec
from gen_worker import ActionContext, worker_function

class Input(msgspec.Struct):
    name: str = "world"

class Output(msgspec.Struct):
    text: str

@worker_function()
def greet(ctx: ActionContext, payload: Input) -> Output:
    return Output(text=f"hello {payload.name}")
"""


def write_hello(folder: Path, name: str, code: str = HELLO) -> Path:
    (folder / "src" / f"{name}_package").mkdir(parents=True, exist_ok=True)
    (folder / "cozy.toml").write_text(f'schema_version = 1\nname = "{name}"\nmain = "{name}_package.main"\ngen_worker = ">=0.2.0,<0.3.0"\n')
    (folder / "src" / f"{name}_package" / "__init__.py").write_text("")
    (folder / "src" / f"{name}_package" / "main.py").write_text(code)
    (folder / ".env").write_text("SECRET=of-the-author")
    return folder
