"""Hugging Face's routes over a few files, served on this machine."""

import hashlib
from collections.abc import Mapping

from blob_server import BlobServer, Exchange

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class HuggingFace:
    """One repository, on a server of its own. `asked` counts requests for its list; `is_away` answers 500 to all."""

    def __init__(self, server: BlobServer, repo: str, files: Mapping[str, bytes]) -> None:
        self.server = server
        self.asked = 0
        self.is_away = False
        self._repo = repo
        self._files = dict(files)
        server.routes[f"/api/models/{repo}"] = self._list
        server.routes[f"/{repo}/resolve/"] = self._resolve
        for path, data in files.items():
            server.add(f"/cdn/{repo}/{path}", data)

    def sent(self) -> dict[str, int]:
        """Bytes of each file that were sent."""
        return {path: self.server.sent.get(f"/cdn/{self._repo}/{path}", 0) for path in self._files}

    def _list(self, exchange: Exchange) -> None:
        self.asked += 1
        revision = exchange.path.partition("?")[0].removeprefix(f"/api/models/{self._repo}").removeprefix("/revision/")
        if self.is_away or revision not in ("", "main", COMMIT):
            exchange.reply(404, {"error": "no"}, {"x-error-code": "RevisionNotFound", "x-error-message": "no"})
            return
        siblings = [
            {"rfilename": path, "size": len(data), "blobId": hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()}
            for path, data in self._files.items()
        ]
        exchange.reply(200, {"id": self._repo, "modelId": self._repo, "sha": COMMIT, "siblings": siblings, "tags": [], "private": False})

    def _resolve(self, exchange: Exchange) -> None:
        path = exchange.path.removeprefix(f"/{self._repo}/resolve/{COMMIT}/")
        exchange.reply(302, None, {"location": f"/cdn/{self._repo}/{path}"})
