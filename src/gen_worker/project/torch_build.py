"""Which build of torch an image will have, and whether it runs on the hosts that cozy.toml admits. Files are read,
nothing is installed.

CUDA's rule (NVIDIA, "CUDA Compatibility"): a driver runs what was built for its own version or an older one. Within a
major version it also runs what was built for a newer minor version, with limits; never a newer major version.
"""

import re
from pathlib import Path
from typing import Any

import msgspec

from gen_worker.project.constraints import constraint_satisfied
from gen_worker.project.dockerfile import build_argument
from gen_worker.project.toml_files import read_toml, tables

CPU = "cpu"
# CUDA versions of drivers, to see which of them a constraint admits.
KNOWN_CUDA = ("11.8", *(f"12.{minor}" for minor in range(10)), *(f"13.{minor}" for minor in range(6)))
_TAG = re.compile(r"cu(\d{2})(\d)\b")


class TorchBuild(msgspec.Struct, frozen=True):
    """`cuda`: for example "12.6", or "cpu"; `source`: where that is written."""

    cuda: str
    source: str


def torch_build(root: Path) -> TorchBuild | None:
    """What uv.lock, pyproject.toml or the Dockerfile says about torch; None when torch is not used or nothing is said."""
    lock = read_toml(root / "uv.lock")
    for package in tables(lock, "package"):
        if package.get("name") == "torch" and "+" in str(package.get("version", "")):
            return _of_tag(str(package["version"]).partition("+")[2], f"uv.lock (torch {package['version']})")
    for package in tables(lock, "package"):
        if re.fullmatch(r"nvidia-cuda-runtime(-cu\d+)?", str(package.get("name", ""))) and _names_torch(lock):
            version = str(package.get("version", ""))
            return TorchBuild(".".join(version.split(".")[:2]), f"uv.lock ({package['name']} {version})")
    return _of_pyproject(read_toml(root / "pyproject.toml")) or _of_dockerfile(root / "Dockerfile")


def fit_problems(build: TorchBuild, cuda: str | None) -> tuple[list[str], list[str]]:
    """Errors and warnings about a torch build on the hosts that `[host.requirements] cuda` admits (None: also hosts without a GPU)."""
    if build.cuda == CPU:
        if cuda is None:
            return [], []
        return [
            f"[host.requirements] cuda = {cuda!r} asks for a GPU, but {build.source} is a build for CPUs, which cannot use it; "
            "take a CUDA build (UV_TORCH_BACKEND=cu126), or remove the requirement"
        ], []
    if cuda is None:
        return [], [
            f"{build.source} is built for CUDA {build.cuda}, but cozy.toml does not require a GPU, so the image may run without one; "
            f'add [host.requirements] cuda = ">={build.cuda}", or use the CPU build, which is smaller (UV_TORCH_BACKEND=cpu)'
        ]
    admitted = [version for version in KNOWN_CUDA if constraint_satisfied(cuda, version)]
    older = [version for version in admitted if _major(version) < _major(build.cuda)]
    fix = f'write cuda = ">={build.cuda}"'
    if older:
        return [
            f"[host.requirements] cuda = {cuda!r} admits hosts with CUDA {older[0]}, whose drivers cannot run {build.source}, "
            f"built for {build.cuda}; {fix}, or take a build for CUDA {_major(older[0])}"
        ], []
    if admitted and _number(admitted[0]) < _number(build.cuda):
        return [], [
            f"[host.requirements] cuda = {cuda!r} admits hosts with CUDA {admitted[0]}; {build.source}, built for {build.cuda}, runs "
            f"there with limits (kernels that are compiled on the host may fail); {fix}"
        ]
    return [], []


def _of_pyproject(project: dict[str, Any]) -> TorchBuild | None:
    uv = project.get("tool", {}).get("uv", {})
    chosen = uv.get("sources", {}).get("torch", [])
    names = {source.get("index") for source in ([chosen] if isinstance(chosen, dict) else chosen)}
    for index in tables(uv, "index"):
        if index.get("name") in names:
            tag = str(index.get("url", "")).rstrip("/").rpartition("/")[2]
            if found := _of_tag(tag, f"pyproject.toml (torch from the index {index['name']!r})"):
                return found
    return None


def _of_dockerfile(path: Path) -> TorchBuild | None:
    try:
        tag = build_argument(path.read_text(), "UV_TORCH_BACKEND")
    except (OSError, UnicodeDecodeError):
        return None
    return _of_tag(tag, f"Dockerfile (UV_TORCH_BACKEND={tag})")


def _of_tag(tag: str, source: str) -> TorchBuild | None:
    if tag == CPU:
        return TorchBuild(CPU, source)
    found = _TAG.match(tag)
    return TorchBuild(f"{found[1]}.{found[2]}", source) if found else None


def _names_torch(lock: dict[str, Any]) -> bool:
    return any(package.get("name") == "torch" for package in tables(lock, "package"))


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def _major(version: str) -> int:
    return _number(version)[0]
