"""Reads the header of a gguf file before its weights: these are converted tensor by tensor, which takes minutes.

The format is described in https://github.com/ggml-org/ggml/blob/master/docs/gguf.md: a magic number, the version, two
counts, then pairs of a key and a value, with all numbers little-endian. Version 1 had narrower counts; nobody writes it
any more.
"""

import struct
from pathlib import Path
from typing import Any, BinaryIO

from gen_worker.errors import FatalError

MAGIC, OLDEST = b"GGUF", 2
ARCHITECTURE = "general.architecture"
MOST_PAIRS, LONGEST_TEXT, LONGEST_LIST = 100_000, 1 << 20, 1 << 24
_TEXT, _LIST = 8, 9
# bytes of a value of each type that is neither text nor an array
_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
# Models that llama.cpp treats as one architecture, and transformers as several.
_SHARED = {"llama": {"llama", "mistral", "mixtral"}, "t5": {"t5", "mt5", "umt5"}, "t5encoder": {"t5", "mt5", "umt5"}}


def check_architecture(path: Path, kind: Any) -> None:
    """Raise `FatalError` when a gguf file holds another architecture than this class of transformers is for. Unclear
    cases pass: the library reports what it does not support.
    """
    architecture = architecture_of(path)
    wanted = str(getattr(getattr(kind, "config_class", None), "model_type", ""))
    if not architecture or not wanted or _may_be(architecture, wanted):
        return
    from transformers import CONFIG_MAPPING

    if _plain(architecture) in map(_plain, (*CONFIG_MAPPING, *_SHARED)):
        raise FatalError(
            f"{path.name} holds a model of the architecture {architecture!r}, and {kind.__name__} is for {wanted!r}; annotate "
            "the parameter with a class for that architecture, or with AutoModelForCausalLM, which takes the one that fits"
        )


def architecture_of(path: Path) -> str:
    """The architecture that a gguf file names, such as `llama`; empty if it names none. `FatalError` if it is not a gguf file."""
    with path.open("rb") as file:
        start = file.read(4)
        if start != MAGIC:
            raise FatalError(f"{path.name} is not a gguf file: it begins with {start!r}, expected {MAGIC!r}; fetch it again")
        try:
            version, _, pairs = struct.unpack("<IQQ", file.read(20))
            for _ in range(min(pairs, MOST_PAIRS) if version >= OLDEST else 0):
                key, (value_type,) = _text(file), struct.unpack("<I", file.read(4))
                if key == ARCHITECTURE and value_type == _TEXT:
                    return _text(file)
                _skip(file, value_type)
        except (struct.error, ValueError):
            return ""  # the file is cut off, or of a later version
    return ""


def _text(file: BinaryIO) -> str:
    (length,) = struct.unpack("<Q", file.read(8))
    if length > LONGEST_TEXT:
        raise ValueError(f"a text of {length} bytes")
    return file.read(length).decode()


def _skip(file: BinaryIO, value_type: int) -> None:
    if value_type == _TEXT:
        _text(file)
    elif value_type == _LIST:
        inner, count = struct.unpack("<IQ", file.read(12))
        if count > LONGEST_LIST or inner == _LIST:
            raise ValueError(f"a list of {count} values of the type {inner}")
        if inner in _SIZES:
            file.seek(count * _SIZES[inner], 1)
        else:
            for _ in range(count):
                _skip(file, inner)
    elif value_type in _SIZES:
        file.seek(_SIZES[value_type], 1)
    else:
        raise ValueError(f"a value of the type {value_type}")


def _may_be(architecture: str, model_type: str) -> bool:
    held, wanted = _plain(architecture), _plain(model_type)
    return wanted in _SHARED.get(held, ()) or held.startswith(wanted) or wanted.startswith(held)


def _plain(name: str) -> str:
    """A name without the characters that the two projects write differently: `qwen2moe` and `qwen2_moe`."""
    return name.replace("_", "").replace("-", "").lower()
