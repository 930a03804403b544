"""Builds a wheel of the running gen-worker, for a project that cannot get it otherwise: in an image there is no clone to install from."""

import base64
import hashlib
import zipfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import gen_worker.frames

_SKIPPED = ("__pycache__", ".DS_Store")
# The earliest time that a zip file can store: equal code gives equal bytes.
_DATE = (1980, 1, 1, 0, 0, 0)


def wheel_name(version: str) -> str:
    return f"gen_worker-{version}-py3-none-any.whl"


def write_wheel(folder: Path) -> Path:
    """Write the wheel of the running gen-worker into `folder`; returns its path.

    It is made from the installed files and metadata, even of an editable install, so it needs neither the clone's build
    tools nor an index. Format: https://packaging.python.org/en/latest/specifications/binary-distribution-format/
    """
    distribution = metadata.distribution("gen-worker")
    path = folder / wheel_name(distribution.version)
    records = []
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:

        def put(name: str, data: bytes) -> None:
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            records.append(f"{name},sha256={digest},{len(data)}\n")
            archive.writestr(zipfile.ZipInfo(name, _DATE), data, zipfile.ZIP_DEFLATED)

        for name, file in _files():
            put(name, file.read_bytes())
        info = f"gen_worker-{distribution.version}.dist-info"
        for name in ("METADATA", "entry_points.txt"):
            put(f"{info}/{name}", (distribution.read_text(name) or "").encode())
        put(f"{info}/WHEEL", b"Wheel-Version: 1.0\nGenerator: cozyctl\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(zipfile.ZipInfo(f"{info}/RECORD", _DATE), "".join([*records, f"{info}/RECORD,,\n"]), zipfile.ZIP_DEFLATED)
    return path


def _files() -> Iterator[tuple[str, Path]]:
    package = Path(gen_worker.frames.__file__).parent
    for file in sorted(package.rglob("*")):
        if file.is_file() and not any(part in _SKIPPED for part in file.parts) and file.suffix != ".pyc":
            yield file.relative_to(package.parent).as_posix(), file
