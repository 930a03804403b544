"""Runs a published gen-worker (`pip install gen-worker==0.3.2` in an environment of its own) on the benchmark's functions.

python published_worker.py ADDRESS
"""

import subprocess
import sys
import tempfile
from pathlib import Path

CODE = """
from collections.abc import Iterator

import msgspec
from gen_worker import ActionContext, worker_function


class Input(msgspec.Struct):
    prompt: str


class Output(msgspec.Struct):
    text: str


@worker_function()
def echo(ctx: ActionContext, payload: Input) -> Output:
    return Output(payload.prompt)


@worker_function()
def stream(ctx: ActionContext, payload: Input) -> Iterator[Output]:
    for number in range(200):
        yield Output(str(number))
"""
COZY = 'schema_version = 1\nname = "bench"\nmain = "bench.main"\ngen_worker = ">=0.2.0,<1"\n'


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "src" / "bench").mkdir(parents=True)
        (folder / "src" / "bench" / "__init__.py").write_text("")
        (folder / "src" / "bench" / "main.py").write_text(CODE)
        (folder / "cozy.toml").write_text(COZY)
        sys.path.insert(0, str(folder / "src"))
        found = subprocess.run([sys.executable, "-m", "gen_worker.discover"], cwd=folder, capture_output=True, check=True)
        import json

        from gen_worker.worker import Worker

        Worker(scheduler_addr=sys.argv[1], user_module_names=["bench.main"], worker_jwt="bench", manifest=json.loads(found.stdout)).run()


if __name__ == "__main__":
    main()
