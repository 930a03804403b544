"""A project that needs a model stored on the platform, and helpers to push one."""

import json
import os
import struct
import subprocess
from pathlib import Path

from platform_process import COZYCTL, PlatformProcess

CODE = """\
from pathlib import Path
from typing import Annotated
import msgspec
from gen_worker import ActionContext, ModelRef, ModelRefSource, worker_function

class Weights:
    def __init__(self, folder):
        self.folder = Path(folder)

    @classmethod
    def from_pretrained(cls, folder):
        return cls(folder)

    def to(self, device):
        return self

class Input(msgspec.Struct):
    pass

class Output(msgspec.Struct):
    names: list[str]
    links: int
    text: str

@worker_function()
def read(ctx: ActionContext, payload: Input, weights: Annotated[Weights, ModelRef(ModelRefSource.FIXED, "toy")]) -> Output:
    files = [path for path in sorted(weights.folder.rglob("*")) if path.is_file()]
    return Output(
        [path.name for path in files],
        (weights.folder / "weights.safetensors").stat().st_nlink,
        (weights.folder / "config.json").read_text(),
    )
"""
COZY_TOML = """\
schema_version = 1
name = "reader"
main = "reader.main"
gen_worker = ">=0.2.0,<0.3.0"

[models]
toy = { ref = "cozy:me/toy:latest", dtypes = ["fp16"] }
"""


def safetensors(dtype: str = "F16", size: int = 4) -> bytes:
    bits = {"F16": 2, "BF16": 2, "F32": 4}[dtype]
    header = json.dumps({"w": {"dtype": dtype, "shape": [size], "data_offsets": [0, size * bits]}}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(range(256))[: size * bits]


def write_model(folder: Path, weights: bytes, config: str = "{}") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "weights.safetensors").write_bytes(weights)
    (folder / "config.json").write_text(config)
    (folder / "LICENSE").write_text("MIT")
    (folder / ".cache").mkdir(exist_ok=True)
    (folder / ".cache" / "lock").write_text("")
    return folder


def verb(platform: PlatformProcess, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "COZY_URL": platform.url, "COLUMNS": "200"}
    return subprocess.run([str(COZYCTL), "models", *arguments], env=env, capture_output=True, text=True, timeout=100, check=False)
