"""Releases of a small project, published as callers publish, whose function waits when it is told to."""

import io
import os
import subprocess
import tarfile
from pathlib import Path
from typing import Any

from hello_project import HELLO, write_hello
from platform_process import COZYCTL, PlatformProcess

SLOW = HELLO.replace("import msgspec", "import time\nimport msgspec").replace(
    "    return Output", "    while payload.name == 'wait' and not ctx.is_canceled():\n        time.sleep(0.01)\n    return Output"
)


def verb(platform: PlatformProcess, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "COZY_URL": platform.url, "COLUMNS": "200"}
    return subprocess.run([str(COZYCTL), *arguments], env=env, capture_output=True, text=True, timeout=100, check=False)


def publish(platform: PlatformProcess, folder: Path, name: str, version: int) -> str:
    """A release of this version of a project."""
    build = built(platform, folder, name, version)
    assert build["status"] == "succeeded", build
    return str(build["release_id"])


def built(platform: PlatformProcess, folder: Path, name: str, version: int) -> dict[str, Any]:
    project = write_hello(folder / f"{name}-{version}", name, SLOW.replace("hello", f"{version}:"))
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        tar.add(project, ".")
    kind = {"content-type": "application/gzip"}
    build = platform.http.post("/v1/endpoints/publish", content=archive.getvalue(), headers=kind).json()
    while build["status"] in ("queued", "running"):
        build = platform.http.get(f"/v1/builds/{build['build_id']}?wait=60").json()
    return dict(build)
