"""The manifest is written and read by the same Structs; its bytes do not change by accident."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from gen_worker.contract.manifest import Manifest
from gen_worker.discover import discover_functions, discover_manifest
from gen_worker.refs import ModelSpec

CODE = """
class In(msgspec.Struct):
    prompt: str
    model: str = "small"

class Out(msgspec.Struct):
    text: str

class Pipe:
    @classmethod
    def from_pretrained(cls, path): ...

@worker_function(ResourceRequirements(max_concurrency=2))
def paint(ctx: ActionContext, pipe: Annotated[Pipe, ModelRef(ModelRefSource.PAYLOAD, "model")],
          other: Annotated[Pipe, ModelRef(ModelRefSource.FIXED, "own", ref="hf:demo/own", dtypes=("fp32",))], payload: In) -> Out: ...

@worker_function(batch=Batch(max_size=4))
def embed(ctx: ActionContext, payloads: list[In]) -> list[Out]: ...

@worker_function
def words(ctx: ActionContext, payload: In) -> Iterator[Out]: ...

@worker_websocket
async def talk(ctx: ActionContext, sock: RealtimeSocket) -> None: ...
"""
COZY = """
[models]
small = "hf:demo/small"
[functions.words]
timeout_s = 7
max_concurrency = 3
[resources]
vram_gb = 8
disk_gb = 1.5
"""
KEYS = [
    "name", "python_name", "module", "resources", "payload_type", "payload_schema_sha256", "input_schema", "output_mode", "output_type",
    "output_schema_sha256", "output_schema", "incremental_output", "injection_json", "required_models", "payload_repo_selectors",
]  # fmt: skip
DELTA_KEYS = ["delta_type", "delta_schema_sha256", "delta_output_schema"]


def test_keys_and_their_order(project: Callable[..., Path]) -> None:
    found = discover_manifest(project(CODE, COZY))
    assert list(found) == ["endpoint_name", "functions", "websockets", "resources", "models_by_function"]
    embed, paint, words = sorted(found["functions"], key=lambda entry: entry["name"])
    assert list(paint) == list(embed) == KEYS
    assert list(words) == KEYS + DELTA_KEYS
    assert paint["resources"] == {"max_concurrency": 2}
    assert embed["resources"] == {"batch": {"max_size": 4, "max_wait_ms": 5}}
    assert list(words["resources"].items()) == [("timeout_s", 7), ("max_concurrency", 3)]
    own = {"source": "fixed", "key": "own", "ref": "hf:demo/own", "dtypes": ["fp32"]}
    assert paint["injection_json"][1] == {"param": "other", "type": f"{paint['module']}.Pipe", "model_ref": own}
    assert paint["payload_repo_selectors"] == [{"field": "model", "kind": "short_key"}]
    compact = json.dumps(paint["input_schema"], sort_keys=True, separators=(",", ":")).encode()
    assert paint["payload_schema_sha256"] == hashlib.sha256(compact).hexdigest()
    assert list(found["websockets"][0]) == ["name", "python_name", "module", "resources", "injection_json", "required_models"]
    assert found["resources"] == {"vram_gb": 8, "disk_gb": 1.5}
    assert list(found["models_by_function"]["paint"]) == ["small", "own"]


def test_what_is_written_is_read_and_written_alike(project: Callable[..., Path]) -> None:
    folder = project(CODE, COZY)
    written = msgspec.json.encode(discover_manifest(folder))
    read = msgspec.json.decode(written, type=Manifest)
    assert msgspec.json.encode(read) == written
    assert [entry.name for entry in read.entries][-1] == "talk"
    assert read.models_of("paint") == {"small": ModelSpec("hf:demo/small"), "own": ModelSpec("hf:demo/own", ("fp32",))}
    assert discover_functions(folder) == json.loads(written)["functions"]


def test_scaling_is_carried_as_it_is_written(project: Callable[..., Path]) -> None:
    folder = project(CODE, COZY)
    without = discover_manifest(folder)
    with (folder / "cozy.toml").open("a") as file:
        file.write("[scaling]\nmax = 2\n")
    found = discover_manifest(folder)
    assert found.pop("scaling") == {"max": 2}
    assert json.dumps(found) == json.dumps(without)


def test_nothing_is_written_for_what_there_is_not(project: Callable[..., Path]) -> None:
    code = "class In(msgspec.Struct): ...\n\n@worker_function\ndef f(ctx: ActionContext, payload: In) -> In: ...\n"
    assert list(discover_manifest(project(code))) == ["endpoint_name", "functions"]


@pytest.mark.parametrize("models", [{"models": {"m": "hf:demo/m"}}, {"models_by_function": {"f": {"m": "hf:demo/m"}}}])
def test_readers_take_little(models: dict[str, object]) -> None:
    entry = {"name": "f", "python_name": "f", "module": "demo.main", "unknown": [1]}
    read = msgspec.convert({"endpoint_name": "demo", "functions": [entry], "unknown": {}, **models}, Manifest)
    assert read.modules == ("demo.main",)
    assert read.models_of("f") == {"m": ModelSpec("hf:demo/m")}
    assert Manifest().entries == ()
