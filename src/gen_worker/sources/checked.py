"""Checks that models' files still match their digests: a damaged file is removed and downloaded again. Blocking."""

import threading
from collections.abc import Callable
from pathlib import Path

from gen_worker.content.progress import Progress
from gen_worker.content.seals import Seals
from gen_worker.errors import FatalError
from gen_worker.log import Log
from gen_worker.shared_files import remove_tree
from gen_worker.sources.source import LocalModel, ModelSource, ModelWant


class CheckedSource:
    """Wraps another source and checks its files before they are used.

    `present` checks files that have a seal, which costs a `stat` a file. `is_right` also hashes files without one; it
    is called before a model's first use. `blob_of`: where the store keeps the content of a digest, besides its name in
    the model's folder.
    """

    def __init__(self, source: ModelSource, seals: Seals, log: Log, blob_of: Callable[[str], Path]) -> None:
        self._source = source
        self._seals = seals
        self._log = log
        self._blob_of = blob_of

    def present(self, want: ModelWant) -> LocalModel | None:
        found = self._source.present(want)
        return found if found is None or self._check(found, unsealed=False) else None

    def fetch(self, want: ModelWant, progress: Progress, cancel: threading.Event) -> LocalModel:
        found = self._source.fetch(want, progress, cancel)
        if self.is_right(found):
            return found
        found = self._source.fetch(want, progress, cancel)
        if self.is_right(found):
            return found
        raise FatalError(f"{want.model_id}: files do not match their digests right after the download; the disk may be broken")

    def is_right(self, local: LocalModel) -> bool:
        """Whether all files of a model on disk match their digests; files that do not are removed."""
        return self._check(local, unsealed=True)

    def _check(self, local: LocalModel, *, unsealed: bool) -> bool:
        damaged = self._seals.damaged(local.path, local.digests, unsealed=unsealed)
        if not damaged:
            return True
        self._log.error("model.file_damaged", model=local.model_id, files=damaged[:10], count=len(damaged), folder=str(local.path))
        if local.localized:
            remove_tree(local.path.parent, local.path.name)
            return False
        for name in damaged:
            path, digest = local.path / name, local.digests[name]
            names = [path.resolve(), path]  # for a link, its target, too
            if digest.startswith("blake3:"):
                names.append(self._blob_of(digest))
            for found in names:
                found.unlink(missing_ok=True)
        return False
