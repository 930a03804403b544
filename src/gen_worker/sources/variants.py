"""GGUF and ONNX: chooses one of several files with the same model, by the marks in their names. Pure."""

import re
from collections.abc import Sequence
from pathlib import PurePosixPath

from gen_worker.sources.plan_types import PlanError

_GGUF_MARKS = {
    "int4": ("q4_k_m", "q4_k_s", "q4_k_l", "q4_k_xl", "q4_0", "q4_1", "iq4"),
    "int8": ("q8_0",),
    "fp16": ("f16", "fp16"),
    "bf16": ("bf16",),
    "fp32": ("f32", "fp32"),
}
# Names used by optimum and transformers.js. A name without a mark is float32, or the only file.
_ONNX_MARKS = {
    "fp16": ("fp16", "float16"),
    "int8": ("int8", "uint8", "quantized", "q8"),
    "int4": ("q4f16", "q4", "int4", "bnb4"),
    "fp32": ("fp32",),
}
_ONNX_MARK = re.compile(r"[_.-](" + "|".join(mark for marks in _ONNX_MARKS.values() for mark in marks) + r")$", re.IGNORECASE)
_ONNX_DATA = re.compile(r"(\.onnx)?([_.]data)(_\d+)?$|\.onnx_data(_\d+)?$")


def choose_gguf(paths: Sequence[str], precisions: Sequence[str]) -> tuple[list[str], str | None]:
    """The files of one GGUF model, with all its parts, and its precision. Projectors of vision models (`mmproj`) are included."""
    found = [path for path in paths if path.endswith(".gguf")]
    projectors = [path for path in found if "mmproj" in path.lower()]
    groups = _joined_parts([path for path in found if path not in projectors and "imatrix" not in path.lower()])
    for precision in precisions:
        for mark in _GGUF_MARKS.get(precision, ()):
            end = "" if mark == "iq4" else "(?![a-z0-9_])"  # iq4_xs, iq4_nl
            pattern = re.compile(rf"(?<![a-z0-9]){mark}{end}")
            if named := [name for name in groups if pattern.search(PurePosixPath(name).name.lower().removesuffix(".gguf"))]:
                return groups[min(named, key=lambda name: (len(name), name))] + _projector(projectors), precision
    if len(groups) == 1:
        return next(iter(groups.values())) + _projector(projectors), None
    raise _which("gguf", sorted(groups), precisions)


def choose_onnx(paths: Sequence[str], precisions: Sequence[str], *, one: bool) -> tuple[list[str], str | None]:
    """The .onnx files of a model with their external data, and their precision. `one`: a single session is made from
    them, so `model.onnx` (or the only model) is meant.
    """
    by_model: dict[str, list[str]] = {}
    for path in _in_one_folder([path for path in paths if path.endswith(".onnx")]):
        by_model.setdefault(_onnx_model(path), []).append(path)
    merged = {name for name in by_model if name.endswith("decoder_model_merged")}
    if merged:  # it replaces the other two
        by_model = {name: files for name, files in by_model.items() if not re.search(r"decoder_(with_past_)?model$", name)}
    # `model_no_gather` is the same model, exported differently
    for name in [name for name in by_model if PurePosixPath(name).name == "model"]:
        by_model = {other: files for other, files in by_model.items() if not other.startswith(f"{name}_")}
    if one and len(by_model) > 1:
        usual = [name for name in by_model if PurePosixPath(name).name == "model"]
        if not usual:
            raise PlanError(
                f"{len(by_model)} onnx models ({', '.join(sorted(by_model)[:6])}); one session needs one, or one named model.onnx"
            )
        by_model = {min(usual, key=lambda name: (name.count("/"), name)): by_model[min(usual, key=lambda name: (name.count("/"), name))]}
    files: list[str] = []
    chosen: set[str | None] = set()
    for name in sorted(by_model):
        path, precision = _onnx_variant(by_model[name], precisions)
        chosen.add(precision)
        files += [path, *(other for other in paths if _is_data_of(other, path))]
    return files, chosen.pop() if len(chosen) == 1 else None


def _in_one_folder(models: Sequence[str]) -> list[str]:
    """The files at the root, else those in `onnx/`, else those of the only folder that has any."""
    folders = {path.rpartition("/")[0] for path in models}
    folder = next((name for name in ("", "onnx") if name in folders), min(folders))
    if folder not in ("", "onnx") and len(folders) > 1:
        raise PlanError(
            f"its onnx models are in {len(folders)} folders ({', '.join(sorted(folders)[:4])}, ...), and nothing says which is meant. "
            "Name one in COZY_HF_COMPONENTS"
        )
    return [path for path in models if path.rpartition("/")[0] == folder]


def _onnx_model(path: str) -> str:
    """`onnx/decoder_model_fp16.onnx` is a variant of `onnx/decoder_model`."""
    stem = path.removesuffix(".onnx")
    while (shorter := _ONNX_MARK.sub("", stem)) != stem:
        stem = shorter
    return stem


def _onnx_mark(path: str) -> str:
    found = _ONNX_MARK.search(path.removesuffix(".onnx"))
    return found[1].lower() if found else ""


def _onnx_variant(files: Sequence[str], precisions: Sequence[str]) -> tuple[str, str | None]:
    marked = {path: _onnx_mark(path) for path in files}
    for precision in precisions:
        for mark in (*_ONNX_MARKS.get(precision, ()), *(("",) if precision == "fp32" else ())):
            if named := [path for path in files if marked[path] == mark]:
                return min(named, key=lambda path: (len(path), path)), precision
    plain = [path for path in files if not marked[path]]
    if len(plain) == 1 or len(files) == 1:
        return (plain or list(files))[0], None
    raise _which("onnx", sorted(files), precisions)


def _is_data_of(other: str, model: str) -> bool:
    """Weights beyond 2 GB are stored beside a model: `model.onnx_data`, `model.onnx.data`, `model.onnx_data_1`, `weights.pb`."""
    if other == model or PurePosixPath(other).parent != PurePosixPath(model).parent:
        return False
    if PurePosixPath(other).name == "weights.pb":
        return True
    return other.startswith((model, model.removesuffix(".onnx") + ".")) and _ONNX_DATA.search(other) is not None


def _joined_parts(found: Sequence[str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for path in found:
        base = re.sub(r"-\d{5}-of-\d{5}(?=\.gguf$)", "", path)
        groups.setdefault(base, []).append(path)
    return {base: sorted(files) for base, files in groups.items()}


def _projector(projectors: Sequence[str]) -> list[str]:
    """The first projector in half precision by name, or the first one."""
    half = [path for path in projectors if re.search(r"(?<!b)f(p)?16", path.lower())]
    return sorted(half or projectors)[:1]


def _which(kind: str, names: Sequence[str], precisions: Sequence[str]) -> PlanError:
    return PlanError(
        f"{len(names)} {kind} files ({', '.join(names[:6])}), none in {' or '.join(precisions)}; "
        'say which: dtypes = ["int4"] or ["int8"] in cozy.toml'
    )
