"""Wheels in a folder, instead of a package index: made-up ones, and those of installed packages."""

import hashlib
import importlib.metadata
import re
import zipfile
from pathlib import Path

from packaging.requirements import Requirement


def make_wheel(folder: Path, name: str, version: str, code: str) -> str:
    """A wheel of one module; its hash as a lock has it."""
    path = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(f"{name}.py", code)
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


def repack_needs_of(folder: Path, name: str) -> None:
    """Make wheels of all that an installed distribution needs, of what is installed here: an installer finds them without a network."""
    waiting, seen = [name], {name}
    while waiting:
        for text in importlib.metadata.distribution(waiting.pop()).requires or ():
            need = Requirement(text)
            if (need.marker is None or need.marker.evaluate({"extra": ""})) and need.name not in seen:
                seen.add(need.name)
                waiting.append(need.name)
                _repack(folder, importlib.metadata.distribution(need.name))


def _repack(folder: Path, found: importlib.metadata.Distribution) -> None:
    tag = re.findall(r"(?m)^Tag: (\S+)$", found.read_text("WHEEL") or "")[0]
    name = re.sub(r"[-_.]+", "_", found.metadata["Name"])
    with zipfile.ZipFile(folder / f"{name}-{found.version}-{tag}.whl", "w") as wheel:
        for path in found.files or ():
            whole = Path(str(path.locate()))
            if ".." not in path.parts and _is_needed(str(path)) and whole.is_file():
                wheel.write(whole, str(path))
        info = next(path.parts[0] for path in found.files or () if path.parts[0].endswith(".dist-info"))
        wheel.writestr(f"{info}/RECORD", "")


def _is_needed(path: str) -> bool:
    """Code and what names it; neither stubs and sources of C nor 500 lexers: an installer takes its time for each file."""
    name = path.rpartition("/")[2]
    if ".dist-info/" in path:
        return name in ("METADATA", "WHEEL", "entry_points.txt")
    return name.endswith((".py", ".so")) and ("pygments/lexers/" not in path or name.startswith("_"))
