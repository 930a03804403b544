"""Reading a gguf file's header: the architecture it names."""

import struct
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gen_worker.errors import FatalError
from gen_worker.residency.loaders.gguf import architecture_of, check_architecture
from gen_worker.residency.loaders.transformers import dtype_option

NUMBERS, TEXT, LIST = 4, 8, 9


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def pair(key: str, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


def write(path: Path, *pairs: bytes, version: int = 3) -> Path:
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", version, 0, len(pairs)) + b"".join(pairs))
    return path


NAMED = pair("general.architecture", TEXT, text("llama"))


def test_the_architecture_is_found_behind_other_values(tmp_path: Path) -> None:
    before = (
        pair("general.file_type", NUMBERS, bytes(4)),
        pair("general.tags", LIST, struct.pack("<IQ", TEXT, 2) + text("a") + text("b")),
        pair("sizes", LIST, struct.pack("<IQ", NUMBERS, 3) + bytes(12)),
        pair("general.name", TEXT, text("x")),
    )
    assert architecture_of(write(tmp_path / "m.gguf", *before, NAMED)) == "llama"


def test_what_names_none_passes(tmp_path: Path) -> None:
    whole = write(tmp_path / "m.gguf", NAMED).read_bytes()
    for cut in range(4, len(whole)):
        (tmp_path / "cut.gguf").write_bytes(whole[:cut])
        assert architecture_of(tmp_path / "cut.gguf") in ("", "llama"[: max(0, cut - len(whole) + 5)])
    assert architecture_of(write(tmp_path / "old.gguf", NAMED, version=1)) == ""
    assert architecture_of(write(tmp_path / "deep.gguf", pair("x", LIST, struct.pack("<IQ", LIST, 1)), NAMED)) == ""
    assert architecture_of(write(tmp_path / "none.gguf")) == ""


@given(st.binary(max_size=200))
def test_whatever_the_file_holds_there_is_an_answer(tmp_path_factory: pytest.TempPathFactory, rest: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.gguf"
    path.write_bytes(b"GGUF" + rest)
    assert isinstance(architecture_of(path), str)


def test_another_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_text("version https://git-lfs")
    with pytest.raises(FatalError, match=r"m\.gguf is not a gguf file: it begins with b'vers'"):
        architecture_of(tmp_path / "m.gguf")


@pytest.mark.parametrize(
    ("architecture", "model_type", "fits"),
    [
        ("llama", "llama", True),
        ("llama", "mistral", True),  # llama.cpp has one name for both
        ("qwen2moe", "qwen2_moe", True),
        ("gpt-oss", "gpt_oss", True),
        ("gemma3", "gemma3_text", True),
        ("t5encoder", "t5", True),
        ("deci", "llama", True),  # not known: the library decides
        ("llama", "gpt2", False),
        ("qwen3", "llama", False),
        ("llama", "bert", False),
    ],
)
def test_classes_that_are_for_another_architecture(tmp_path: Path, architecture: str, model_type: str, fits: bool) -> None:
    pytest.importorskip("transformers")
    path = write(tmp_path / "m.gguf", pair("general.architecture", TEXT, text(architecture)))
    kind = type("Kind", (), {"config_class": SimpleNamespace(model_type=model_type)})
    if fits:
        check_architecture(path, kind)
        return
    with pytest.raises(FatalError, match=f"m.gguf holds a model of the architecture '{architecture}', and Kind is for '{model_type}'"):
        check_architecture(path, kind)


def test_a_class_that_fits_any_architecture_passes(tmp_path: Path) -> None:
    check_architecture(write(tmp_path / "m.gguf", NAMED), type("AutoModelForCausalLM", (), {}))


@pytest.mark.parametrize(
    ("version", "name"),
    [("4.40.2", "torch_dtype"), ("4.55.4", "torch_dtype"), ("4.56.0", "dtype"), ("5.0.0rc1", "dtype"), ("5.23.0", "dtype")],
)
def test_the_name_of_the_precision_is_that_of_the_installed_library(monkeypatch: pytest.MonkeyPatch, version: str, name: str) -> None:
    monkeypatch.setitem(sys.modules, "transformers", SimpleNamespace(__version__=version))
    assert dtype_option() == name
