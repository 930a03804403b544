"""The routes of Hugging Face and of a hub, over real files, on the blob server: it answers the downloaders like the real ones."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import msgspec
from blake3 import blake3

from tests.blob_server import BlobServer, Exchange

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LFS_ABOVE_BYTES = 1 << 14


def read_tree(folder: Path) -> dict[str, bytes]:
    """Files of a folder by relative path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


class FakeHuggingFace:
    """One repository. `token` non-empty: only with it."""

    def __init__(self, server: BlobServer, repo: str, files: Mapping[str, bytes], *, token: str = "", gated: bool = False) -> None:
        self.server = server
        self.repo = repo
        self.files = dict(files)
        self.token = token
        self.gated = gated
        self.listings = 0
        server.routes[f"/api/models/{repo}"] = self._list
        server.routes[f"/{repo}/resolve/"] = self._resolve
        for path, data in self.files.items():
            server.add(f"/cdn/{repo}/{path}", data)

    def _refused(self, exchange: Exchange) -> bool:
        if self.token and exchange.headers.get("authorization") != f"Bearer {self.token}":
            code = "GatedRepo" if self.gated else "RepoNotFound"
            exchange.reply(403 if self.gated else 401, {"error": "no"}, {"x-error-code": code, "x-error-message": "no"})
            return True
        return False

    def _list(self, exchange: Exchange) -> None:
        self.listings += 1
        if self._refused(exchange):
            return
        revision = exchange.path.partition("?")[0].removeprefix(f"/api/models/{self.repo}").removeprefix("/revision/")
        if revision not in ("", "main", COMMIT):
            exchange.reply(404, {"error": "no"}, {"x-error-code": "RevisionNotFound", "x-error-message": "no"})
            return
        siblings = []
        for path, data in self.files.items():
            entry: dict[str, object] = {"rfilename": path, "size": len(data)}
            if len(data) > LFS_ABOVE_BYTES:
                entry["lfs"] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
                entry["blobId"] = "f" * 40
            else:
                entry["blobId"] = hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()
            siblings.append(entry)
        exchange.reply(200, {"id": self.repo, "modelId": self.repo, "sha": COMMIT, "siblings": siblings, "tags": [], "private": False})

    def _resolve(self, exchange: Exchange) -> None:
        if self._refused(exchange):
            return
        path = exchange.path.removeprefix(f"/{self.repo}/resolve/{COMMIT}/")
        if path not in self.files:
            exchange.reply(404, {"error": "no"}, {"x-error-code": "EntryNotFound"})
            return
        exchange.reply(302, None, {"location": f"/cdn/{self.repo}/{path}"})


class FakeCozyHub:
    """Models by canonical ref, with presigned addresses that change with `server.token`."""

    def __init__(self, server: BlobServer, *, token: str = "") -> None:
        self.server = server
        self.token = token
        self.models: dict[str, dict[str, bytes]] = {}
        self.pending: dict[str, int] = {}  # answers 202 so many times first
        self.asked: list[dict[str, object]] = []
        server.routes["/api/v1/public/models/request"] = self._request

    def add(self, ref: str, files: Mapping[str, bytes]) -> None:
        """Serve a model's files; each address expires with the server's token."""
        self.models[ref] = dict(files)
        for data in files.values():
            self.server.add(f"/blob/{blake3(data).hexdigest()}", data, expires=True)

    def files_of(self, ref: str) -> list[dict[str, object]]:
        return [
            {
                "path": path,
                "size_bytes": len(data),
                "blake3": blake3(data).hexdigest(),
                "url": f"{self.server.url}/blob/{blake3(data).hexdigest()}?token={self.server.token}",
            }
            for path, data in self.models[ref].items()
        ]

    def digest_of(self, ref: str) -> str:
        return blake3(msgspec.json.encode({path: blake3(data).hexdigest() for path, data in self.models[ref].items()})).hexdigest()

    def _request(self, exchange: Exchange) -> None:
        body = exchange.json_body()
        self.asked.append(body)
        ref = str(body["model_ref"])
        if self.token and exchange.headers.get("authorization") != f"Bearer {self.token}":
            exchange.reply(403, {"message": "sign in"})
        elif ref not in self.models:
            exchange.reply(404, {"error": "not mirrored"})
        elif self.pending.get(ref, 0) > 0:
            self.pending[ref] -= 1
            exchange.reply(202, {"ingest_job_id": "job-1"})
        else:
            manifest = {"version": 1, "files": self.files_of(ref)}
            exchange.reply(200, {"repo_revision_seq": 1, "snapshot_digest": self.digest_of(ref), "snapshot_manifest": manifest})


class FakeOldHub:
    """A hub from before the public route: one repository `demo/digits`, whose version lists objects. `knows_artifacts`: of the time in
    between, which had `resolve_artifact`."""

    def __init__(self, server: BlobServer, files: Mapping[str, bytes], *, knows_artifacts: bool = False) -> None:
        self.server = server
        self.files = dict(files)
        self.digest = "ab" * 32
        self.asked: list[dict[str, object]] = []
        for data in files.values():
            server.add(f"/blob/{blake3(data).hexdigest()}", data)
        repo = "/api/v1/repos/demo/digits"
        server.routes[f"{repo}/resolve"] = self._resolve
        server.routes[f"{repo}/snapshots/"] = self._snapshot
        server.routes["/api/v1/objects/"] = self._object
        server.routes = {f"{repo}/resolve_artifact": self._artifact if knows_artifacts else _not_found} | server.routes

    def _resolve(self, exchange: Exchange) -> None:
        exchange.reply(200, {"digest": self.digest} if exchange.path.endswith("?tag=latest") else {})

    def _artifact(self, exchange: Exchange) -> None:
        self.asked.append(exchange.json_body())
        manifest = {"version": 1, "files": self._entries(self.files)}
        exchange.reply(200, {"repo_revision_seq": 1, "snapshot_digest": self.digest, "snapshot_manifest": manifest})

    def _snapshot(self, exchange: Exchange) -> None:
        folders = sorted({path.partition("/")[0] for path in self.files if "/" in path})
        objects = {folder: f"blake3:{number:064x}" for number, folder in enumerate(folders)}
        root = self._entries({path: data for path, data in self.files.items() if "/" not in path})
        exchange.reply(
            200 if self.digest in exchange.path else 404, {"snapshot_digest": self.digest, "objects": objects, "root_files": root}
        )

    def _object(self, exchange: Exchange) -> None:
        number = int(exchange.path.rpartition(":")[2].partition("/")[0], 16)
        folder = sorted({path.partition("/")[0] for path in self.files if "/" in path})[number]
        inside = {path.partition("/")[2]: data for path, data in self.files.items() if path.startswith(f"{folder}/")}
        exchange.reply(200, {"files": self._entries(inside)})

    def _entries(self, files: Mapping[str, bytes]) -> list[dict[str, object]]:
        hashed = {path: (blake3(data).hexdigest(), len(data)) for path, data in files.items()}
        return [
            {"path": path, "size": size, "blake3_hex": digest, "url": f"{self.server.url}/blob/{digest}"}
            for path, (digest, size) in hashed.items()
        ]


def _not_found(exchange: Exchange) -> None:
    exchange.reply(404, {"error": "no such route"})
