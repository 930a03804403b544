"""A real S3 server (SeaweedFS) on its own ports, for tests of files in a bucket."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import httpx
from waiting import until

WEED = Path(sys.executable).parent / "weed"
KEYS = {"AWS_ACCESS_KEY_ID": "test-key", "AWS_SECRET_ACCESS_KEY": "test-secret-of-many-letters"}
PORTS = ("master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc", "s3.port", "s3.port.grpc")


def is_there() -> bool:
    return WEED.exists() or shutil.which("weed") is not None


class S3Server:
    """Serves an empty store; makes a bucket when something is put there."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._log = folder / "weed.log"
        config = folder / "s3.json"
        identity = {"accessKey": KEYS["AWS_ACCESS_KEY_ID"], "secretKey": KEYS["AWS_SECRET_ACCESS_KEY"]}
        config.write_text(
            json.dumps({"identities": [{"name": "test", "credentials": [identity], "actions": ["Admin", "Read", "Write", "List"]}]})
        )
        self._folder = folder
        self._config = config
        for tries_left in (2, 1, 0):  # ports that were free a moment ago may be taken when it listens
            self._start()
            until(lambda: self._answers() or self.process.poll() is not None, 60, self._said)
            if self.process.poll() is None:
                break
            assert tries_left, self._said()
            self.close()
        self.env = {**KEYS, "AWS_ENDPOINT_URL": self._url, "AWS_REGION": "us-east-1"}

    def _start(self) -> None:
        sockets = [socket.create_server(("127.0.0.1", 0)) for _ in PORTS]
        self._ports = dict(zip(PORTS, (each.getsockname()[1] for each in sockets), strict=True))
        for each in sockets:
            each.close()
        self._url = f"http://127.0.0.1:{self._ports['s3.port']}"
        data = Path(tempfile.mkdtemp(prefix="data-", dir=self._folder))
        arguments = [f"-dir={data}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-filer", "-s3", "-volume.max=20", f"-s3.config={self._config}"]
        arguments += ["-master.volumeSizeLimitMB=64", "-master.telemetry=false", "-s3.port.iceberg=0", "-s3.port.lance=0"]
        command = [str(WEED if WEED.exists() else "weed"), "server", *arguments, *(f"-{name}={port}" for name, port in self._ports.items())]
        environment = {**os.environ, "HOME": str(self._folder)}
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=self._folder)

    def _said(self) -> str:
        return self._log.read_text(errors="replace")[-4000:]

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self._url}/", trust_env=False).status_code < 500
        except httpx.TransportError:
            return False

    def close(self) -> None:
        self.process.kill()
        self.process.wait(60)
        for port in self._ports.values():  # it makes sockets beside its ports, and leaves them
            for path in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):  # its own place for them
                path.unlink(missing_ok=True)
