"""A repository's configuration may contain anything. The error names the file and its fault; nothing else is raised."""

import json
import struct
from typing import Any

import pytest

from gen_worker.errors import FatalError
from gen_worker.sources.file_plan import SelectionPolicy
from gen_worker.sources.gather import MAX_DOCUMENT_BYTES, gather


def weights(header: bytes, body: int = 16) -> bytes:
    return struct.pack("<Q", len(header)) + header + bytes(body)


GOOD = weights(b'{"a":{"dtype":"F16","shape":[8],"data_offsets":[0,16]}}')
DEEP = b"[" * 100_000 + b"]" * 100_000


def plan(files: dict[str, bytes], takers: tuple[str, ...] = (), sizes: dict[str, int] | None = None) -> set[str]:
    found = gather(
        {path: len(data) for path, data in files.items()} | (sizes or {}),
        SelectionPolicy(takers=takers),
        lambda path: files[path],
        lambda path: files[path],
        "hf:demo/m",
    )
    return set(found.files)


def as_json(value: Any) -> bytes:
    return value if isinstance(value, bytes) else json.dumps(value).encode()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe\x00", "not UTF-8|not JSON"),
        (b'{"unet": "\xff"}', "model_index.json: it is not UTF-8"),
        (b"", "model_index.json: it is not JSON"),
        (DEEP, "model_index.json: it is not JSON"),
        (b"1" * 10_000, "model_index.json: it is not JSON"),
        ([1, 2], "model_index.json is not a JSON object; it contains a list"),
        (None, "model_index.json is not a JSON object; it contains null"),
        ("text", "it contains a text"),
        (5, "it contains a number"),
        ({}, "names no component"),
        ({"unet": ["diffusers", 5]}, r"describes 'unet' as \['diffusers', 5\]; expected \[library, class\]"),
        ({"../unet": ["diffusers", "X"]}, r"describes '\.\./unet'"),
        ({"..": ["diffusers", "X"]}, r"describes '\.\.'"),
        ({"": ["diffusers", "X"]}, "describes"),
        ({"vae": ["diffusers", "AutoencoderKL"]}, "names the component 'vae', but the repository has no such folder"),
    ],
)
def test_model_index(content: Any, message: str) -> None:
    files = {"model_index.json": as_json(content), "unet/config.json": b"{}", "unet/diffusion_pytorch_model.safetensors": GOOD}
    with pytest.raises(FatalError, match=f"hf:demo/m: .*{message}|{message}"):
        plan(files)


@pytest.mark.parametrize("value", [5, True, "x", {}, [], [1], [1, 2], [1.5, 2.5], ["a"], [None, None], {"a": ["b", "c"]}, None])
def test_settings_of_a_pipeline_are_no_components(value: Any) -> None:
    index = {"_class_name": ["my_pipeline", "X"], "unet": ["diffusers", "UNet2DConditionModel"], "setting": value}
    files = {"model_index.json": as_json(index), "unet/config.json": b"{}", "unet/diffusion_pytorch_model.safetensors": GOOD}
    assert plan(files) == set(files)


INDEX = "model.safetensors.index.json"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1], "has no weight_map"),
        ({}, "has no weight_map"),
        ({"weight_map": []}, "has no weight_map"),
        ({"weight_map": {}}, "has no weight_map"),
        ({"weight_map": {"a": 5}}, "has no weight_map"),
        ({"weight_map": {"a": "../../etc/passwd.safetensors"}}, "names '../../etc/passwd.safetensors'; expected a .safetensors file"),
        ({"weight_map": {"a": "/etc/passwd"}}, "names '/etc/passwd'; expected"),
        ({"weight_map": {"a": "pytorch_model.bin"}}, "names 'pytorch_model.bin'; expected"),
        ({"weight_map": {"a": INDEX}}, f"names '{INDEX}'; expected"),
        ({"weight_map": {"a": "model-00009-of-00002.safetensors"}}, "which the repository lacks"),
        (b"\xff", "it is not UTF-8"),
        (DEEP, "it is not JSON"),
    ],
)
def test_index_of_shards(content: Any, message: str) -> None:
    shards = {f"model-0000{number}-of-00002.safetensors": GOOD for number in (1, 2)}
    with pytest.raises(FatalError, match=f"{INDEX}.*{message}"):
        plan({"config.json": b"{}", INDEX: as_json(content), "pytorch_model.bin": b"p", **shards})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "modules.json is not a list"),
        ([], "modules.json is not a list"),
        ([5], "modules.json has the entry 5"),
        ([{"path": "", "type": 5}], "modules.json has the entry"),
        ([{"path": "../x", "type": "a.Dense"}], "modules.json has the entry"),
        ([{"path": "/etc", "type": "a.Dense"}], "modules.json has the entry"),
        ([{"path": "x", "type": "a.B"}] * 1000, "modules.json is not a list of 1 to 64"),
        (b"\xff", "modules.json: it is not UTF-8"),
        (DEEP, "modules.json: it is not JSON"),
    ],
)
def test_modules(content: Any, message: str) -> None:
    with pytest.raises(FatalError, match=message):
        plan({"config.json": b"{}", "modules.json": as_json(content), "model.safetensors": GOOD})


def test_modules_that_name_each_other() -> None:
    modules = [{"path": path, "type": "a.Transformer"} for path in ("", "x", "", "x", "./x")]
    files = {"modules.json": as_json(modules), "config.json": b"{}", "model.safetensors": GOOD, "x/config.json": b"{}"}
    assert plan(files) == set(files)


@pytest.mark.parametrize("content", [b"\xff", b"[1]", b"5", DEEP, b'{"tokenizer_class": "\xff"}'])
def test_tokenizer_configuration(content: bytes) -> None:
    files = {"tokenizer_config.json": content, "tokenizer.json": b"{}"}
    with pytest.raises(FatalError, match=r"tokenizer_config\.json"):
        plan(files, ("transformers.AutoTokenizer",))


@pytest.mark.parametrize("named", [5, None, [], {}, "", "../../X", "NoSuchTokenizer"])
def test_a_tokenizer_class_that_is_none(named: Any) -> None:
    files = {"tokenizer_config.json": as_json({"tokenizer_class": named}), "tokenizer.json": b"{}", "vocab.txt": b"", "evil.py": b""}
    assert plan(files, ("transformers.AutoTokenizer",)) == set(files) - {"evil.py"}


@pytest.mark.parametrize(
    "data",
    [
        weights(b'{"\xff":{"dtype":"F16","shape":[8],"data_offsets":[0,16]}}'),
        weights(b"[]"),
        weights(DEEP[: 1 << 16]),
        weights(b'{"a":5}'),
        weights(b'{"a":{"dtype":"F16","shape":[true,8],"data_offsets":[0,16]}}'),
        weights(b'{"a":{"dtype":"F16","shape":[' + b"9" * 4000 + b'],"data_offsets":[0,16]}}'),
        weights(b'{"a":{"dtype":"F16","shape":[' + b"4611686018427387904," * 50_000 + b'1],"data_offsets":[0,16]}}'),
        weights(b'{"a":{"dtype":"F16","shape":[NaN],"data_offsets":[0,16]}}'),
        weights(b'{"__metadata__":"x","a":{"dtype":"F16","shape":[8],"data_offsets":[0,16]}}'),
        struct.pack("<Q", 2**63) + b"{}",
        b"PK\x03\x04" + bytes(100),
        b"",
        b"short",
    ],
)
def test_headers(data: bytes) -> None:
    with pytest.raises(FatalError, match=r"^hf:demo/m: model\.safetensors: "):
        plan({"config.json": b"{}", "model.safetensors": data})


def test_a_document_of_many_bytes_is_not_read() -> None:
    files = {"model_index.json": b"{}", "unet/x.safetensors": GOOD}
    with pytest.raises(FatalError, match=f"model_index.json: it has {MAX_DOCUMENT_BYTES + 1} bytes; at most"):
        plan(files, sizes={"model_index.json": MAX_DOCUMENT_BYTES + 1})


def test_numbers_that_only_python_reads() -> None:
    """Configurations hold Infinity and NaN, and lengths of 31 digits: the libraries write them."""
    config = b'{"tokenizer_class": "BertTokenizer", "model_max_length": 1000000000000000019884624838656, "x": Infinity, "y": NaN}'
    files = {"tokenizer_config.json": config, "vocab.txt": b"a"}
    assert plan(files, ("transformers.AutoTokenizer",)) == set(files)
